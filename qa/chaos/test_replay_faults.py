"""The spy and its copies, on the real broker."""

import random
from types import SimpleNamespace

import pytest

from contracts.ids import new_id
from contracts.users import UserRegistered
from qa.chaos.replay_faults import COPY_HEADER, SPY, channel_of, copy_of, everywhere, heard, listen, to_each_handler
from tests.support import eventually

COUNT = 20


@pytest.fixture
def arena(servers):
    """As much of one as a replay needs."""
    arena = SimpleNamespace(servers=servers, direct=servers.environment)
    with channel_of(arena) as channel:
        channel.queue_delete(SPY)
    listen(arena)
    yield arena
    with channel_of(arena) as channel:
        channel.queue_delete(SPY)


@pytest.fixture
def published(arena, bus):
    """The message ids of a few events, as they were published."""
    ids = [bus.publish(UserRegistered(user_id=new_id(), email=f"{number}@example.com")) for number in range(COUNT)]
    eventually(lambda: len(look(arena, COUNT)) == COUNT, timeout=20)
    return ids


def look(arena, count):
    with channel_of(arena) as channel:
        return heard(channel, random.Random(1), count)


def test_the_spy_has_every_event_of_the_run_in_its_order(arena, published):
    assert [message.properties["message_id"] for message in look(arena, COUNT)] == published


def test_it_can_be_asked_again_and_for_a_part(arena, published):
    part = [message.properties["message_id"] for message in look(arena, 5)]
    assert len(part) == 5
    begin = published.index(part[0])
    assert part == published[begin : begin + 5]


def test_a_copy_is_the_message_itself_and_no_source_of_copies(arena, published, bus):
    original = look(arena, 1)[0]
    with channel_of(arena) as channel:
        [(exchange, routing_key)] = everywhere(original)
        channel.basic_publish(copy_of(original, new_id=False), exchange, routing_key)

    def copies():
        bus.events()  # reads what has come
        return [message for message in bus.heard if COPY_HEADER in (message.headers or {})]

    copy = eventually(copies)[0]
    assert copy.body == original.body
    assert copy.properties["message_id"] == original.properties["message_id"]
    assert copy.properties["content_type"] == "application/json"
    assert len(look(arena, COUNT + 1)) == COUNT


def test_under_a_new_id_only_the_id_is_another(arena, published):
    original = look(arena, 1)[0]
    copy = copy_of(original, new_id=True)
    assert copy.body == original.body
    assert copy.properties["message_id"] != original.properties["message_id"]
    assert to_each_handler(original) == [("", "notifications.on_user_registered")]
