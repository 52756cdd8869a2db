"""The number of messages in the broker, as the consistency check counts them."""

import socket

import eventlet
import nameko
import pytest
from nameko import config

from contracts.ids import new_id
from contracts.orders import OrderShipped
from extensions.messaging import queue_depths, topology
from extensions.messaging.connection import BrokerUnavailable
from extensions.messaging.queue_depths import QueueDepths
from tests.silent_broker import silent_broker
from tests.support import connect, eventually, purge_queues

QUEUE = "notifications.on_order_shipped"


@pytest.fixture(autouse=True)
def _no_messages(servers):
    purge_queues()
    yield
    purge_queues()


def test_a_broker_that_says_nothing_is_awaited_for_a_limited_time(monkeypatch):
    monkeypatch.setattr(queue_depths, "TIMEOUT_SECONDS", 0.5)
    with silent_broker() as broker, nameko.config.patch({"AMQP_URI": broker.uri}), eventlet.Timeout(30):
        with pytest.raises(BrokerUnavailable):
            QueueDepths().waiting()
        assert broker.handshakes


def test_ready_messages_are_counted_by_queue(bus):
    assert QueueDepths().waiting() == {}
    for _ in range(3):
        bus.publish(OrderShipped(order_id=new_id(), user_id=new_id()))
    bus.publish_raw("notifications", "{", exchange=topology.DEAD_LETTERS)
    expected = {QUEUE: 3, topology.dead_letter_queue("notifications"): 1}
    eventually(lambda: QueueDepths().waiting() == expected)


def test_messages_in_retry_queues_are_counted(bus):
    queue = topology.retry_exchange(max(topology.retry_delays()))

    def is_counted():
        purge_queues()  # on a slow machine an earlier message may have left its queue before it was counted
        bus.publish_raw(QUEUE, "{}", exchange=queue)
        return QueueDepths().waiting() == {queue: 1}

    eventually(is_counted)


def test_a_missing_queue_counts_as_empty():
    with connect() as connection:
        connection.channel().queue_delete(QUEUE)
    assert QueueDepths().waiting() == {}


def test_without_a_broker_it_is_unavailable():
    with socket.socket() as unused, config.patch({"AMQP_URI": ""}):
        unused.bind(("127.0.0.1", 0))  # bound, but not listening
        config["AMQP_URI"] = f"pyamqp://guest:guest@127.0.0.1:{unused.getsockname()[1]}//"
        with pytest.raises(BrokerUnavailable):
            QueueDepths().waiting()
