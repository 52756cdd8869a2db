"""Two processes handle one message: the first was suspended when it lost its connection, and continues afterwards."""

import socket

import eventlet
import pytest
from eventlet.event import Event as Signal
from nameko.containers import get_container_cls

from contracts.errors import UpstreamTimeout
from contracts.events import queue_name
from contracts.ids import new_id
from contracts.orders import OrderShipped
from extensions.messaging.event_handler import handles
from extensions.messaging.listener import Listener
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.service.conftest import prepare
from tests.support import eventually

QUEUE = queue_name("notifications", OrderShipped)
ENTERED, EFFECTS = [], []


class Suspended(operations.Operations):
    """The first call or event blocks until the test continues it."""

    name = "notifications"
    work = Work(Base)
    go_on = Signal()

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        self._block_the_first()
        self.work.after_commit(EFFECTS.extend, [str(received.event.order_id) for received in events])

    @rpc(transaction=False)
    def act(self):
        self._block_the_first()
        EFFECTS.append("acted")
        return "done"

    def _block_the_first(self):
        ENTERED.append(1)
        if len(ENTERED) == 1:
            self.go_on.wait()


@pytest.fixture
def start(servers):
    prepare("notifications")
    ENTERED.clear()
    EFFECTS.clear()
    Suspended.go_on = Signal()
    containers = []

    def run():
        containers.append(get_container_cls()(Suspended))
        containers[-1].start()
        return containers[-1]

    yield run
    for container in containers:
        container.stop()


def cut(container):
    container.shared_extensions[Listener]._connection.connection.transport.sock.shutdown(socket.SHUT_RDWR)


def test_an_event_that_two_processes_handle_takes_effect_once(start, bus):
    zombie = start()
    event, after = (OrderShipped(order_id=new_id(), user_id=new_id()) for _ in range(2))
    bus.publish(event)
    eventually(lambda: ENTERED)
    start()
    cut(zombie)  # the broker redelivers to the other process, which waits for the zombie's transaction
    eventually(lambda: zombie.shared_extensions[Listener]._connection.connection)
    eventlet.sleep(0.5)
    Suspended.go_on.send()
    bus.publish(after)
    eventually(lambda: str(after.order_id) in EFFECTS)
    eventually(lambda: bus.is_drained(QUEUE))
    assert sorted(EFFECTS) == sorted([str(event.order_id), str(after.order_id)])


def test_a_redelivered_call_is_not_repeated_and_its_result_is_unknown(start, caller):
    zombie = start()
    call = eventlet.spawn(caller.notifications.act)
    eventually(lambda: ENTERED)
    start()
    cut(zombie)
    with pytest.raises(UpstreamTimeout, match="unknown"):
        call.wait()
    Suspended.go_on.send()
    eventually(lambda: EFFECTS)
    assert caller.notifications.act() == "done"
    assert EFFECTS == ["acted", "acted"]  # by the zombie, and by this last call
