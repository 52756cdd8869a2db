"""Events are recorded and published again unchanged, on a real broker."""

import random
from types import SimpleNamespace

import pytest

from contracts.ids import new_id
from contracts.users import UserRegistered
from qa.chaos.duplicate_event_faults import (
    COPY_HEADER,
    RECORDER,
    channel_of,
    copy_of,
    recorded_events,
    start_recording,
    to_each_handler,
    to_exchange,
)
from tests.support import eventually

COUNT = 20


@pytest.fixture
def sandbox(servers):
    """The parts of a sandbox that a replay needs."""
    sandbox = SimpleNamespace(servers=servers, direct=servers.environment)
    with channel_of(sandbox) as channel:
        channel.queue_delete(RECORDER)
    start_recording(sandbox)
    yield sandbox
    with channel_of(sandbox) as channel:
        channel.queue_delete(RECORDER)


@pytest.fixture
def published(sandbox, bus):
    """The message ids of some published events, in order."""
    ids = [bus.publish(UserRegistered(user_id=new_id(), email=f"{number}@example.com")) for number in range(COUNT)]
    eventually(lambda: len(look(sandbox, COUNT)) == COUNT, timeout=20)
    return ids


def look(sandbox, count):
    with channel_of(sandbox) as channel:
        return recorded_events(channel, random.Random(1), count)


def test_the_recorder_has_every_event_in_order(sandbox, published):
    assert [message.properties["message_id"] for message in look(sandbox, COUNT)] == published


def test_a_part_of_the_events_can_be_read(sandbox, published):
    part = [message.properties["message_id"] for message in look(sandbox, 5)]
    assert len(part) == 5
    begin = published.index(part[0])
    assert part == published[begin : begin + 5]


def test_a_copy_equals_the_message_and_is_not_copied_again(sandbox, published, bus):
    original = look(sandbox, 1)[0]
    with channel_of(sandbox) as channel:
        [(exchange, routing_key)] = to_exchange(original)
        channel.basic_publish(copy_of(original, new_id=False), exchange, routing_key)

    def copies():
        bus.events()  # reads new messages
        return [message for message in bus.messages if COPY_HEADER in (message.headers or {})]

    copy = eventually(copies)[0]
    assert copy.body == original.body
    assert copy.properties["message_id"] == original.properties["message_id"]
    assert copy.properties["content_type"] == "application/json"
    assert len(look(sandbox, COUNT + 1)) == COUNT


def test_a_copy_with_a_new_id_differs_only_in_its_id(sandbox, published):
    original = look(sandbox, 1)[0]
    copy = copy_of(original, new_id=True)
    assert copy.body == original.body
    assert copy.properties["message_id"] != original.properties["message_id"]
    assert to_each_handler(original) == [("", "notifications.on_user_registered")]
