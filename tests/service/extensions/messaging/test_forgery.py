"""Messages that bypass the broker's permissions are refused: a consumer checks by which route a message came.

RabbitMQ 3 checks permission for the routing key of a message, but not for the keys in its headers CC and BCC, nor for
the target to which a sender's own queue dead-letters.
"""

import json
from datetime import UTC, datetime

import amqp
import pytest
import sqlalchemy

from contracts.errors import InvalidState
from contracts.events import EVENTS, EXCHANGE
from contracts.ids import new_id
from contracts.orders import OrderShipped
from contracts.users import UserUpdated
from extensions.messaging import topology
from extensions.messaging.broadcast import on_broadcast
from extensions.messaging.event_handler import handles
from extensions.messaging.topology import AGAIN, DEAD_LETTERS, RPC_EXCHANGE
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.runtime.addresses import uri_variable
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.support import connect, database, eventually

DONE = []
# The service that forges, and a routing key that its user may publish to in `events` and in `nameko-rpc`.
FORGER, OWN_KEYS = "payments", {EXCHANGE: "payment.captured", RPC_EXCHANGE: "payments.health"}


class Victim(operations.Operations):
    """Takes the place of notifications, and receives an event, a call and a broadcast."""

    name = "notifications"
    work = Work(Base)

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        DONE.extend(str(received.event.order_id) for received in events)

    @on_broadcast(UserUpdated)
    def on_user_updated(self, event):
        DONE.append(str(event.user_id))

    @rpc
    def refund(self, what):
        DONE.append(what)


@pytest.fixture
def victim(run_service):
    DONE.clear()
    return run_service(Victim)


@pytest.fixture
def forger(environment):
    with connect(environment[uri_variable(FORGER)]) as connection:
        yield connection.channel()


def by_header(name):
    def send(channel, exchange, key, body, **properties):
        headers = {name: [key]}
        publish(channel, amqp.Message(body, application_headers=headers, **properties), exchange, OWN_KEYS[exchange])

    return send


def publish(channel, message, exchange, key):
    """Publish a message with CC or BCC."""
    try:
        channel.basic_publish_confirm(message, exchange, key)
    except amqp.AccessRefused:
        pytest.skip("this version of RabbitMQ also checks the permission for the keys in CC and BCC")


def by_a_queue_that_dead_letters(channel, exchange, key, body, **properties):
    address = str(new_id())
    queue = channel.queue_declare(
        topology.reply_queue(FORGER, address),
        exclusive=True,
        arguments={"x-message-ttl": 1, "x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": key},
    ).queue
    channel.queue_bind(queue, RPC_EXCHANGE, address)
    headers = {"x-death": [{"queue": topology.retry_exchange(50), "reason": "expired", "count": 1}]}
    message = amqp.Message(body, application_headers=headers, **properties)
    channel.basic_publish(message, RPC_EXCHANGE, address)


ROUTES = {"CC": by_header("CC"), "BCC": by_header("BCC"), "dead-lettering": by_a_queue_that_dead_letters}


@pytest.fixture(params=ROUTES.values(), ids=ROUTES)
def send(request):
    return request.param


def letters_of(*message_ids):
    """The dead letters of these messages; messages of an earlier test may have become others."""
    with database("notifications").connect() as connection:
        statement = sqlalchemy.text("SELECT * FROM dead_letters WHERE message_id = ANY(:ids)")
        return connection.execute(statement, {"ids": list(message_ids)}).all()


def the_letter(message_id):
    (letter,) = eventually(lambda: letters_of(message_id))
    return letter


def test_a_forged_event_is_a_dead_letter(victim, forger, send, bus):
    forged, genuine = (OrderShipped(order_id=new_id(), user_id=new_id()) for _ in range(2))
    identity = {"content_type": "application/json", "message_id": str(new_id()), "type": "order.shipped"}
    send(forger, EXCHANGE, "order.shipped", forged.to_json(), **identity)
    letter = the_letter(identity["message_id"])
    assert "it was dead-lettered by" in letter.error or "routed here by its headers" in letter.error
    bus.publish(genuine)
    eventually(lambda: str(genuine.order_id) in DONE)
    assert str(forged.order_id) not in DONE


def test_a_forged_event_can_never_be_replayed(victim, forger, send, caller):
    forged = OrderShipped(order_id=new_id(), user_id=new_id())
    identity = {"content_type": "application/json", "message_id": str(new_id()), "type": "order.shipped"}
    send(forger, EXCHANGE, "order.shipped", forged.to_json(), **identity)
    letter = the_letter(identity["message_id"])
    assert letter.is_forged
    with pytest.raises(InvalidState, match="can only be discarded"):
        caller.notifications.replay_dead_letter(str(letter.id))
    (result,) = caller.notifications.replay_dead_letters(ids=[str(letter.id)])["items"]
    assert (result["outcome"], result["code"]) == ("failed", "INVALID_STATE")
    assert letters_of(identity["message_id"])[0].replayed_at is None
    caller.notifications.discard_dead_letter(str(letter.id))
    assert str(forged.order_id) not in DONE


def delivery_limit(queue, *routing_keys):
    """The header of a message that the broker dead-letters because it was delivered too often."""
    return {"queue": queue, "reason": "delivery_limit", "count": 1, "routing-keys": list(routing_keys)}


FORGED_DEATHS = {
    "by its headers": [delivery_limit("notifications.on_order_shipped", OWN_KEYS[EXCHANGE])],
    "by a queue of its sender": [
        delivery_limit("notifications.on_order_shipped", "order.shipped"),
        {"queue": topology.reply_queue(FORGER, str(new_id())), "reason": "expired", "count": 1},
    ],
}


@pytest.mark.parametrize("deaths", FORGED_DEATHS.values(), ids=FORGED_DEATHS)
def test_a_forged_event_that_crashed_its_consumer_is_never_put_back(victim, bus, caller, deaths):
    """Put back under the name of its queue, it would look genuine."""
    forged, message_id = OrderShipped(order_id=new_id(), user_id=new_id()), str(new_id())
    headers = {"x-death": deaths}
    bus.publish_raw("notifications", forged.to_json(), DEAD_LETTERS, message_id=message_id, application_headers=headers)
    letter = the_letter(message_id)
    assert (letter.is_forged, letter.queue) == (True, "notifications.on_order_shipped")
    with pytest.raises(InvalidState):
        caller.notifications.replay_dead_letter(str(letter.id))
    assert str(forged.order_id) not in DONE


def test_a_genuine_event_that_was_retried_and_delivered_too_often_is_put_back(victim, bus):
    event, message_id = OrderShipped(order_id=new_id(), user_id=new_id()), str(new_id())
    queue = "notifications.on_order_shipped"
    deaths = [delivery_limit(queue, queue), {"queue": topology.retry_exchange(50), "reason": "expired", "count": 1}]
    headers = {"x-death": deaths}
    bus.publish_raw("notifications", event.to_json(), DEAD_LETTERS, message_id=message_id, application_headers=headers)
    eventually(lambda: str(event.order_id) in DONE)


def test_a_forged_call_is_a_dead_letter(victim, forger, send, caller):
    forged, genuine = str(new_id()), str(new_id())
    body = json.dumps({"args": [forged], "kwargs": {}})
    identity = {"content_type": "application/json", "message_id": str(new_id()), "reply_to": "nowhere"}
    send(forger, RPC_EXCHANGE, "notifications.refund", body, **identity)
    assert the_letter(identity["message_id"]).queue == "rpc-notifications"
    caller.notifications.refund(genuine)
    assert genuine in DONE
    assert forged not in DONE


def test_a_forged_broadcast_is_ignored(victim, forger, send, bus, caplog):
    forged, genuine = (
        UserUpdated(user_id=new_id(), roles=["admin"], is_active=True, at=datetime.now(UTC)) for _ in range(2)
    )
    send(forger, EXCHANGE, "user.updated", forged.to_json())
    eventually(lambda: "ignoring an invalid message" in caplog.text)
    bus.publish(genuine)
    eventually(lambda: str(genuine.user_id) in DONE)
    assert str(forged.user_id) not in DONE


def test_a_bcc_of_a_retry_to_another_service_becomes_a_dead_letter(victim, forger):
    """Every service may publish to the retry queues."""
    own = next(f"{FORGER}.on_{name.replace('.', '_')}" for name in EVENTS if FORGER in EVENTS[name].consumers)
    forged = OrderShipped(order_id=new_id(), user_id=new_id())
    headers = {"BCC": ["notifications.on_order_shipped"]}
    sent = {AGAIN: str(new_id()), topology.retry_exchange(50): str(new_id())}
    for exchange, message_id in sent.items():
        message = amqp.Message(
            forged.to_json(), content_type="application/json", message_id=message_id, application_headers=headers
        )
        publish(forger, message, exchange, own)

    eventually(lambda: len(letters_of(*sent.values())) == 2)
    assert str(forged.order_id) not in DONE


def test_messages_in_retry_queues_of_version_0_1_are_handled(victim):
    """Their exchanges were fanouts, and they dead-lettered to the default exchange. An upgraded broker keeps them."""
    event = OrderShipped(order_id=new_id(), user_id=new_id())
    with connect() as administrator:
        channel, old = administrator.channel(), "retry.50ms"
        channel.exchange_declare(old, "fanout", durable=True, auto_delete=False)
        arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-message-ttl": 50}
        channel.queue_declare(old, durable=True, auto_delete=False, arguments=arguments)
        channel.queue_bind(old, old, "")
        try:
            message = amqp.Message(event.to_json(), content_type="application/json", message_id=str(new_id()))
            channel.basic_publish(message, old, "notifications.on_order_shipped")
            eventually(lambda: str(event.order_id) in DONE)
        finally:
            channel.queue_delete(old)
            channel.exchange_delete(old)
