"""Both implementations that AMQP_WIRE chooses between, on a real broker: send and receive, acknowledge, reply."""

import eventlet
import nameko
import pytest
import sqlalchemy

from contracts.errors import ServiceUnavailable
from contracts.ids import new_id
from contracts.orders import OrderShipped
from extensions.messaging.connection import ack, connect
from extensions.messaging.event_handler import handles
from extensions.messaging.listener import Listener
from extensions.messaging.wire.connection import WIRES, connection_class
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.service.extensions.toy import Calls
from tests.support import database, eventually

QUEUE = "notifications.on_order_shipped"


class Subject(operations.Operations):
    """Takes the place of notifications."""

    name = "notifications"
    work = Work(Base)
    call = Calls()

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        """The inbox records it."""

    @rpc
    def echo(self, *args):
        return list(args)

    @rpc(transaction=False)
    def ask(self, service, *args):
        return self.call(service, "echo", args, {}, 4.0)


@pytest.fixture(params=WIRES)
def wire(request, servers):
    with nameko.config.patch({"AMQP_WIRE": request.param}):
        yield request.param


@pytest.fixture
def subject(wire, run_service):
    return run_service(Subject)


def inbox():
    with database("notifications").connect() as connection:
        return connection.scalar(sqlalchemy.text("SELECT count(*) FROM inbox"))


def test_a_message_is_received_as_it_was_sent(wire):
    headers = {"x-request-id": "ürgent"}
    with connect(heartbeat=0) as connection:
        channel, received = connection.channel(), []
        queue = channel.queue_declare(exclusive=True, auto_delete=False).queue
        channel.basic_consume(queue, callback=received.append)
        for body in ('"ğ"', "x" * 300_000):  # the second takes several frames
            message = channel.message(
                body, "", queue, headers=headers, correlation_id="c", reply_to="r", expiration="60000"
            )
            channel.send(message)
        while len(received) < 2:
            connection.drain_events(timeout=5)
        assert [message.body for message in received] == ['"ğ"'.encode(), b"x" * 300_000]
        properties = received[0].properties
        assert [properties[name] for name in ("correlation_id", "reply_to", "expiration")] == ["c", "r", "60000"]
        assert (properties["content_type"], properties["content_encoding"]) == ("application/json", "utf-8")
        assert received[0].headers == headers


@pytest.mark.parametrize("by_send", [True, False])
def test_an_acknowledged_message_does_not_come_again(wire, by_send):
    with connect(heartbeat=0) as connection:
        channel, received = connection.channel(), []
        queue = channel.queue_declare(exclusive=True, auto_delete=False).queue
        channel.basic_consume(queue, callback=received.append)
        channel.send(channel.message("1", "", queue), channel.message("2", "", queue))
        while len(received) < 2:
            connection.drain_events(timeout=5)
        if by_send:
            channel.send(channel.acknowledgement(received[0].delivery_tag))
        else:
            ack(channel, received[0].delivery_tag)
        channel.close()
        channel = connection.channel()  # unacknowledged messages have returned to the queue
        assert channel.basic_get(queue).body == b"2"
        assert channel.basic_get(queue) is None


def test_an_unroutable_mandatory_message_is_returned(wire):
    with connect(heartbeat=0) as connection:
        channel, returned = connection.channel(), []
        channel.events["basic_return"].add(lambda *args: returned.append(args[-1].body))
        channel.send(channel.message("7", "", "no such queue", mandatory=True))
        connection.drain_events(timeout=5)
        assert returned == [b"7"]


def test_a_service_handles_events_and_replies_to_calls(subject, wire, bus, caller):
    assert isinstance(subject.shared_extensions[Listener]._connection.connection, connection_class({"AMQP_WIRE": wire}))
    event = OrderShipped(order_id=new_id(), user_id=new_id())
    message_id = bus.publish(event)
    bus.publish(event, message_id=message_id)
    eventually(inbox)
    assert caller.notifications.ask("notifications", "ğ", 1) == ["ğ", 1]
    with pytest.raises(ServiceUnavailable, match="absent"):
        caller.notifications.ask("absent")
    subject.stop()  # unacknowledged messages would return to the queue
    assert bus.is_drained(QUEUE)
    assert inbox() == 1


def test_many_greenlets_call_over_one_connection(subject, caller):
    body = "x" * 200_000  # several frames; and fewer calls than RPC_PREFETCH, for the service calls itself
    calls = [eventlet.spawn(caller.notifications.ask, "notifications", body, number) for number in range(8)]
    assert [call.wait() for call in calls] == [[body, number] for number in range(8)]
