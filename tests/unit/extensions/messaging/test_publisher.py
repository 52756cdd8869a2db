"""The deadline of a batch. What the broker does with messages is tested with a real one, in tests/service."""

import pytest

from extensions.messaging import publisher
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage
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
