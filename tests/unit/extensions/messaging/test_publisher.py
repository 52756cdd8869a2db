"""The deadline of a batch. What the broker does with messages is tested with a real one, in tests/service."""

import eventlet
import pytest

from extensions.messaging import publisher
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage, Part
from extensions.storage.engine import SESSION_SETTINGS


class SlowBroker(ConfirmedPublisher):
    """A publisher whose broker takes a second to confirm a part, on a clock of the test."""

    def __init__(self):
        super().__init__()
        self.now, self.parts = 0.0, []

    def _publish_part(self, messages, outcome):
        self.now += 1.0
        self.parts.append(len(messages))
        outcome.confirmed |= {message.message_id for message in messages}


@pytest.fixture
def slow(monkeypatch):
    one = SlowBroker()
    monkeypatch.setattr(publisher.time, "monotonic", lambda: one.now)
    return one


def messages(*keys):
    return [OutgoingMessage("events", key, "{}", key) for key in keys]


def test_a_batch_ends_in_time_however_slow_its_parts_are(slow):
    batch = messages(*map(str, range(100)))  # to a hundred new addresses: as many parts
    outcome = slow.publish(batch)
    assert slow.now <= publisher.START_SECONDS + 1.0
    assert outcome.failure is None
    assert len(outcome.confirmed) == len(slow.parts) > 0
    assert outcome.is_open(batch[-1])  # it is left to the next call
    outcome = slow.publish(batch[len(slow.parts) :])
    assert outcome.confirmed


def test_the_first_part_is_always_tried(slow, monkeypatch):
    monkeypatch.setattr(publisher, "START_SECONDS", 0.001)
    for key in "ab":
        assert slow.publish_one(OutgoingMessage("events", key, "{}", key)) == ""
    assert slow.parts == [1, 1]


def test_a_call_ends_before_postgresql_ends_the_transaction_of_the_relay():
    whole = sum(getattr(publisher, f"{name}_SECONDS") for name in ("LOCK", "START", "OPEN", "PUBLISH"))
    assert whole < float(SESSION_SETTINGS["idle_in_transaction_session_timeout"].removesuffix("s"))


def sent(*message_ids, optional=()):
    """A part whose messages are written, with the tags 1, 2, ..."""
    part = Part(optional)
    part.unconfirmed = dict(enumerate(message_ids, start=1))
    part.is_written = True
    return part


class TestOptionalMessages:
    @pytest.fixture
    def ended(self, monkeypatch):
        """A function that returns whether the wait for a part has ended within the patience of the test."""

        def wait(part):
            with eventlet.Timeout(0.2, False):
                part.wait()
                return True
            return False

        monkeypatch.setattr(publisher, "OPTIONAL_SECONDS", 0.01)
        return wait

    def test_the_others_do_not_wait_for_it(self, ended):
        part = sent("event", "log", optional={"log"})
        part.settle(1, multiple=False)
        assert ended(part)
        assert (part.confirmed, part.unconfirmed) == ({"event"}, {2: "log"})

    def test_the_others_are_awaited(self, ended):
        part = sent("event", "log", optional={"log"})
        part.settle(2, multiple=False)
        assert not ended(part)
        part.settle(1, multiple=False)
        assert ended(part)

    def test_it_is_awaited_for_some_time(self, ended, monkeypatch):
        monkeypatch.setattr(publisher, "OPTIONAL_SECONDS", 10)
        part = sent("log", optional={"log"})
        part.end_if_complete()
        eventlet.spawn_after(0.02, part.settle, 1, False)
        assert ended(part)
        assert part.confirmed == {"log"}

    def test_a_lost_connection_ends_the_wait(self, ended):
        part = sent("event", "log", optional={"log"})
        part.fail(OSError())
        assert ended(part)
