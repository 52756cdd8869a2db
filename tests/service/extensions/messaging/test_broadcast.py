"""Broadcasts: every process hears every event, and takes no more of them than it can handle."""

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


class Ear:
    """Hears slowly: nothing is finished before the gate opens."""

    name = "ear"
    gate = Signal()
    heard = ()

    @on_broadcast(UserUpdated)
    def on_user_updated(self, event):
        self.gate.wait()
        self.heard.append(event.user_id)


@pytest.fixture
def ears(run_service, monkeypatch):
    """The service twice, with two workers each."""
    Ear.gate, Ear.heard = Signal(), []
    monkeypatch.setattr("tests.service.conftest.empty_database", lambda _service: None)
    with nameko.config.patch({"max_workers": 2}):
        yield [run_service(Ear), run_service(Ear)]
        if not Ear.gate.ready():
            Ear.gate.send()


def update():
    return UserUpdated(user_id=new_id(), roles=["customer"], is_active=True, at=datetime.now(UTC))


def test_what_cannot_be_handled_yet_waits_in_the_queue_and_not_here(ears, bus):
    idle = [len(container._managed_threads) for container in ears]
    for _ in range(EVENTS):
        bus.publish(update())
    for container, before in zip(ears, idle, strict=True):
        eventually(lambda c=container, b=before: len(c._managed_threads) == b + Broadcast.prefetch)
    eventually(lambda: [bus.events()] and len(bus.heard) == EVENTS)  # they have all been sent
    assert [len(container._managed_threads) for container in ears] == [before + Broadcast.prefetch for before in idle]
    assert [len(container._worker_threads) for container in ears] == [1, 1]
    Ear.gate.send()
    eventually(lambda: len(Ear.heard) == 2 * EVENTS)
    assert len(set(Ear.heard)) == EVENTS


def test_what_is_no_such_event_holds_up_nobody(ears, bus):
    for _ in range(20):
        bus.publish_raw("user.updated", "{}")
    bus.publish(update())
    Ear.gate.send()
    eventually(lambda: len(Ear.heard) == len(ears))


def test_a_service_that_stops_does_not_wait_for_what_has_no_worker_yet(ears, bus):
    for _ in range(EVENTS):
        bus.publish(update())
    eventually(lambda: all(container._worker_threads for container in ears))
    Ear.gate.send()
    with eventlet.Timeout(10):
        for container in ears:
            container.stop()
