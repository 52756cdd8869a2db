"""An event that the broker refuses is postponed with the reason, and tried again. Every other event leaves once."""

import json

import nameko
import pytest
import sqlalchemy

from contracts.errors import PermissionDenied
from contracts.events import EXCHANGE, queue_name
from contracts.ids import new_id
from contracts.orders import OrderDelivered, OrderShipped
from extensions.messaging import outbox_relay
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.runtime.addresses import uri_variable
from extensions.storage.unit_of_work import Work
from orders.models import Base
from tests.broker_control import topic_permission
from tests.support import connect, database, eventually

QUEUES = {kind: queue_name("notifications", kind) for kind in (OrderShipped, OrderDelivered)}
UNKNOWN = "order.archived"
"""An event of a later release, which the definitions of the broker do not have yet."""
CUSTOMER = {"user_id": str(new_id()), "roles": ["customer"]}


class Producer(operations.Operations):
    """Takes the place of orders, with its user of the broker, and consumes nothing."""

    name = "orders"
    work = Work(Base)

    @rpc
    def publish_events(self, *order_ids):
        for order_id in order_ids:
            self.work.publish(OrderShipped(order_id=order_id, user_id=order_id))


@pytest.fixture
def own_user(environment):
    with nameko.config.patch({"AMQP_URIS": {"orders": environment[uri_variable("orders")]}}):
        yield


@pytest.fixture
def producer(own_user, run_service):
    return run_service(Producer)


@pytest.fixture
def channel(servers):
    with connect() as connection:
        yield connection.channel()


def arrived(channel, kind):
    """Take the messages of the queue for events of this kind; returns the order ids in their order."""
    orders = []
    while message := channel.basic_get(QUEUES[kind], no_ack=True):
        orders.append(json.loads(message.body)["order_id"])
    return orders


def write(*event_types):
    """Commit one event of each type to the outbox, in this order; returns their order ids."""
    ids = [str(new_id()) for _ in event_types]
    rows = [
        {
            "message_id": new_id(),
            "event_type": event_type,
            "body": json.dumps({"order_id": order_id, "user_id": order_id}),
            "correlation_id": order_id,
            "headers": {"x-request-id": "r"},
        }
        for event_type, order_id in zip(event_types, ids, strict=True)
    ]
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.insert(Base.metadata.tables["outbox"]), rows)
    return ids


def waiting():
    with database("orders").connect() as connection:
        return connection.execute(sqlalchemy.text("SELECT * FROM outbox ORDER BY id")).all()


def test_a_refused_event_waits_with_its_reason_and_every_other_leaves_once(producer, caller, channel, servers):
    batch = ["order.shipped", UNKNOWN, "order.shipped", "order.delivered", "order.shipped"]
    ids = write(*batch)
    caller.orders.publish_events(last := str(new_id()))
    shipped = [order_id for order_id, event in zip(ids, batch, strict=True) if event == "order.shipped"]
    eventually(lambda: len(waiting()) == 1 and waiting()[0].attempts >= 2)  # it was tried again

    (row,) = waiting()
    assert row.event_type == UNKNOWN
    assert "ACCESS_REFUSED" in row.last_error
    assert arrived(channel, OrderShipped) == [*shipped, last]
    assert arrived(channel, OrderDelivered) == [ids[3]]

    (listed,) = caller.orders.list_refused_events()["items"]
    assert (listed["id"], listed["event"], listed["service"]) == (str(row.message_id), UNKNOWN, "orders")
    assert "ACCESS_REFUSED" in listed["error"]
    assert listed["attempts"] >= 2
    with pytest.raises(PermissionDenied):
        caller.orders.list_refused_events(actor=CUSTOMER)

    with topic_permission(servers.rabbitmq, "orders", EXCHANGE, r"^order\..*$"):
        eventually(lambda: waiting() == [])


def test_a_thousand_refused_events_delay_no_other(producer, caller, channel):
    write(*[UNKNOWN] * 1000)
    for _ in range(3):
        caller.orders.publish_events(order_id := str(new_id()))
        eventually(lambda order_id=order_id: arrived(channel, OrderShipped) == [order_id])
    assert len(waiting()) == 1000


def test_an_event_that_cannot_be_encoded_is_put_aside(producer, caller, channel):
    with database("orders").begin() as connection:
        row = {"message_id": new_id(), "event_type": "order.shipped" * 30, "body": "{}", "correlation_id": ""}
        connection.execute(sqlalchemy.insert(Base.metadata.tables["outbox"]), [row | {"headers": {}}])
    caller.orders.publish_events(order_id := str(new_id()))
    eventually(lambda: arrived(channel, OrderShipped) == [order_id])
    eventually(lambda: "cannot be encoded" in (waiting()[0].last_error or ""))


class TestThePublisher:
    @pytest.fixture
    def publisher(self, producer):
        return producer.shared_extensions[ConfirmedPublisher]

    def message(self, routing_key="order.shipped", exchange=EXCHANGE, body="{}"):
        return OutgoingMessage(exchange, routing_key, body, str(new_id()))

    def test_a_permission_that_is_withdrawn_stops_only_its_events(self, publisher, servers, channel):
        """They were published in one batch with others until now."""
        assert publisher.publish([self.message(), self.message("order.delivered")]).refused == {}
        with topic_permission(servers.rabbitmq, "orders", EXCHANGE, r"^order\.delivered$"):

            def publish_batch():
                batch = [self.message(key) for key in ["order.delivered", "order.shipped"] * 5]
                outcome = publisher.publish(batch)
                return outcome.refused and (batch, outcome)

            # The channel of the broker forgets a permission that it has checked only after an idle time, which grows.
            batch, outcome = eventually(publish_batch, pause=3)
        assert outcome.failure is None
        assert set(outcome.refused) == {one.message_id for one in batch if one.routing_key == "order.shipped"}
        assert outcome.confirmed == {one.message_id for one in batch if one.routing_key == "order.delivered"}

    def test_an_exchange_that_is_missing_stops_only_its_messages(self, publisher):
        lost, good = self.message(exchange="nowhere"), self.message()
        outcome = publisher.publish([lost, good])
        assert "NOT_FOUND" in outcome.refused[lost.message_id] or "ACCESS_REFUSED" in outcome.refused[lost.message_id]
        assert outcome.confirmed == {good.message_id}

    def test_a_refused_address_is_not_tried_again_before_its_pause(self, publisher, caplog):
        refused = [self.message(UNKNOWN) for _ in range(3)]
        for message in refused:
            assert "ACCESS_REFUSED" in publisher.publish([message]).refused[message.message_id]
        assert caplog.text.count("RabbitMQ refuses a message") == 1

    def test_a_refusal_costs_no_new_connection(self, publisher):
        publisher.publish([self.message()])
        connection = publisher._connection.connection
        for number in range(4):
            outcome = publisher.publish([self.message(f"{UNKNOWN}.{number}"), self.message()])
            assert (len(outcome.refused), len(outcome.confirmed), outcome.failure) == (1, 1, None)
        assert publisher._connection.connection is connection


def test_events_that_were_confirmed_before_a_failure_are_not_sent_again(producer, caller, channel, monkeypatch):
    """The outcome of a batch that failed half-way is recorded: what was confirmed is not sent again."""
    publish = ConfirmedPublisher._publish_part
    calls = []

    def fail_once(publisher, messages, outcome):
        calls.append(len(messages))
        if len(calls) == 2:
            raise outbox_relay.BrokerUnavailable
        return publish(publisher, messages, outcome)

    monkeypatch.setattr(ConfirmedPublisher, "_publish_part", fail_once)
    ids = [str(new_id()) for _ in range(5)]
    caller.orders.publish_events(*ids)
    eventually(lambda: waiting() == [])
    assert arrived(channel, OrderShipped) == ids
    assert len(calls) >= 3
