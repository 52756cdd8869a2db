"""A stop leaves no partial work, no event that counts as a failed delivery, and no call without a result."""

import json
from contextlib import suppress

import amqp
import eventlet
import pytest
from eventlet.patcher import original
from nameko.containers import get_container_cls

from contracts.errors import UpstreamTimeout
from contracts.events import queue_name
from contracts.ids import new_id
from contracts.orders import OrderShipped
from extensions.messaging import event_handler
from extensions.messaging.event_handler import handles
from extensions.messaging.listener import Listener
from extensions.messaging.topology import RPC_EXCHANGE
from extensions.operations import operations
from extensions.rpc import server as transport
from extensions.rpc.server import RpcServer, rpc
from extensions.storage.periodic import periodic
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.service.conftest import prepare
from tests.support import Caller, await_replies, connect, eventually

QUEUE = queue_name("notifications", OrderShipped)
HANDLED = []
blocking_sleep = original("time").sleep


class Slow(operations.Operations):
    """Handles every event and every call slowly."""

    name = "notifications"
    work = Work(Base)

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        eventlet.sleep(0.02 * len(events))
        HANDLED.extend(str(received.event.order_id) for received in events)

    @rpc(transaction=False)
    def nap(self):
        eventlet.sleep(0.05)
        return "rested"

    @rpc(transaction=False)
    def other(self):
        return "answered"


class Endless(operations.Operations):
    """Runs work that takes longer than a stop waits for."""

    name = "notifications"
    work = Work(Base)

    @periodic(seconds=1.0)
    def clean_up(self):
        eventlet.sleep(60)

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        HANDLED.append(len(events))
        eventlet.sleep(60)

    @rpc
    def count_everything(self):
        HANDLED.append("begun")
        eventlet.sleep(60)


@pytest.fixture
def started(servers):
    """A function that starts an instance. Instances that still run are stopped after the test."""
    prepare("notifications")
    HANDLED.clear()
    containers = []

    def run(service_class=Slow):
        container = get_container_cls()(service_class)
        containers.append(container)
        container.start()
        return container

    yield run
    for container in containers:
        container.stop()


def left_in(queue):
    """Take all messages out of a queue."""
    with connect() as connection:
        channel = connection.channel()
        left = []
        while message := channel.basic_get(queue, no_ack=True):
            left.append(message)
        return left


def test_a_stopping_service_handles_delivered_events_and_none_counts_as_failed(started, bus, monkeypatch):
    monkeypatch.setattr(event_handler, "STOP_SECONDS", 60.0)  # enough for all of them on a slow machine
    events = [OrderShipped(order_id=new_id(), user_id=new_id()) for _ in range(700)]
    for event in events:
        bus.publish(event)
    for stop in range(1, 4):
        container = started()
        eventually(lambda stop=stop: len(HANDLED) >= stop * 50)
        container.stop()
    left = left_in(QUEUE)
    assert len(HANDLED) + len(left) == len(events)  # each event is either handled or still in the queue
    assert len(left) > 100, "the test must stop a service that still has events to handle"
    assert [message.headers for message in left if (message.headers or {}).get("x-delivery-count")] == []


def test_calls_during_the_stop_of_an_instance_all_return(started):
    stopping, _staying = started(), started()
    answers = []

    def call(number):
        for _ in range(20):
            answer = Caller(timeout=5.0).call("notifications", ("nap", "other")[number % 2], [], {})
            answers.append(answer)

    callers = [eventlet.spawn(call, number) for number in range(8)]
    eventually(lambda: len(answers) > 40)
    stopping.stop()
    for caller in callers:
        caller.wait()
    assert sorted(answers) == ["answered"] * 80 + ["rested"] * 80


def test_a_stopping_instance_serves_delivered_calls_and_leaves_the_rest_in_the_queue(started, monkeypatch):
    container = started()
    unsubscribe = Listener.unsubscribe
    with connect() as connection:
        channel, replies = connection.channel(), []
        address = await_replies(channel, replies.append)

        def unsubscribe_with_deliveries_unread(listener, subscription):
            if isinstance(subscription, RpcServer):
                monkeypatch.undo()
                for number in range(40):  # more than the prefetch count of an instance
                    publish_call(channel, address, ("nap", "other")[number % 2])
                blocking_sleep(0.5)  # this process does not read them yet
            unsubscribe(listener, subscription)

        monkeypatch.setattr(Listener, "unsubscribe", unsubscribe_with_deliveries_unread)
        container.stop()
        started()

        def all_returned():
            with suppress(OSError):
                connection.drain_events(timeout=0.1)
            return len(replies) == 40

        eventually(all_returned)
    errors = [json.loads(reply.body)["error"] for reply in replies]
    assert errors == [None] * 40


def test_a_stop_does_not_wait_for_endless_work(started, bus, monkeypatch):
    monkeypatch.setattr(transport, "STOP_SECONDS", 0.5)
    for _ in range(3):
        bus.publish(OrderShipped(order_id=new_id(), user_id=new_id()))
    container = started(Endless)
    call = eventlet.spawn(Caller(timeout=10.0).call, "notifications", "count_everything", [], {})
    eventually(lambda: "begun" in HANDLED and len(HANDLED) == 2)
    with eventlet.Timeout(8):
        container.stop()
    with pytest.raises(UpstreamTimeout, match="whether it acted is unknown"):
        call.wait()
    assert len(left_in(QUEUE)) == 3


def publish_call(channel, address, method):
    call = amqp.Message(
        json.dumps({"args": [], "kwargs": {}}),
        content_type="application/json",
        reply_to=address,
        correlation_id=str(new_id()),
    )
    channel.basic_publish(call, RPC_EXCHANGE, f"notifications.{method}")
