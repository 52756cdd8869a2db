"""Broadcasts: every process receives every event, and holds no more of them than it can handle."""

from datetime import UTC, datetime

import eventlet
import nameko
import pytest
from eventlet.event import Event as Signal

from contracts.ids import new_id
from contracts.users import UserUpdated
from extensions.messaging.broadcast import Broadcast, on_broadcast
from tests.support import eventually

EVENTS = 50


class Receiver:
    """Handles no event before the gate opens."""

    name = "receiver"
    gate = Signal()
    received = ()

    @on_broadcast(UserUpdated)
    def on_user_updated(self, event):
        self.gate.wait()
        self.received.append(event.user_id)


@pytest.fixture
def receivers(run_service, monkeypatch):
    """The service twice, with two workers each."""
    Receiver.gate, Receiver.received = Signal(), []
    monkeypatch.setattr("tests.service.conftest.empty_database", lambda _service: None)
    with nameko.config.patch({"max_workers": 2}):
        yield [run_service(Receiver), run_service(Receiver)]
        if not Receiver.gate.ready():
            Receiver.gate.send()


def update():
    return UserUpdated(user_id=new_id(), roles=["customer"], is_active=True, at=datetime.now(UTC))


def test_broadcasts_beyond_the_prefetch_wait_in_the_queue(receivers, bus):
    idle = [len(container._managed_threads) for container in receivers]
    for _ in range(EVENTS):
        bus.publish(update())
    for container, before in zip(receivers, idle, strict=True):
        eventually(lambda c=container, b=before: len(c._managed_threads) == b + Broadcast.prefetch)
    eventually(lambda: [bus.events()] and len(bus.messages) == EVENTS)  # they have all been sent
    assert [len(container._managed_threads) for container in receivers] == [
        before + Broadcast.prefetch for before in idle
    ]
    assert [len(container._worker_threads) for container in receivers] == [1, 1]
    Receiver.gate.send()
    eventually(lambda: len(Receiver.received) == 2 * EVENTS)
    assert len(set(Receiver.received)) == EVENTS


def test_invalid_broadcasts_delay_no_valid_one(receivers, bus):
    for _ in range(20):
        bus.publish_raw("user.updated", "{}")
    bus.publish(update())
    Receiver.gate.send()
    eventually(lambda: len(Receiver.received) == len(receivers))


def test_a_stopping_service_does_not_wait_for_broadcasts_without_a_worker(receivers, bus):
    for _ in range(EVENTS):
        bus.publish(update())
    eventually(lambda: all(container._worker_threads for container in receivers))
    Receiver.gate.send()
    with eventlet.Timeout(10):
        for container in receivers:
            container.stop()
