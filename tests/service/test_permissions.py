"""Each service's user of the broker has the permissions that the contracts require, and no others.

The cases are derived from contracts/events.py and contracts/call_permissions.py, so new ones are tested, too.
"""

from types import SimpleNamespace

import amqp
import eventlet
import nameko
import pytest
from amqp.exceptions import AccessRefused

from contracts.call_permissions import CALLS, bus_services
from contracts.events import EVENTS, EXCHANGE, queue_name
from contracts.ids import new_id
from contracts.services import GATEWAY, PROCESSES, SERVICES
from deploy.server_users import OPERATOR
from extensions.messaging import topology
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage
from extensions.messaging.topology import AGAIN, DEAD_LETTERS, EVENT_LOG, LOGGED_EVENTS, RPC_EXCHANGE
from extensions.runtime.addresses import uri_variable
from tests.support import connect, eventually, purge_queues

HANDLERS = [(service, queue_name(service, event)) for event in EVENTS.values() for service in event.consumers]
METHODS = {f"{service}.{method}" for service in SERVICES for method in ("health", "audit", "replay_dead_letter")}
METHODS |= {call for calls in CALLS.values() for call in calls if not call.endswith(".*")}


@pytest.fixture(scope="module", params=bus_services())
def me(request):
    """A service whose password is known to an attacker."""
    return request.param


@pytest.fixture(scope="module")
def mine(environment, me):
    """A connection as the user of that service."""
    with connect(environment[uri_variable(me)]) as connection:
        yield connection
    purge_queues()  # remove the messages that the broker accepted


def sends(connection, exchange, routing_key, **properties):
    """Check whether the broker accepts a message. A refusal closes the channel."""
    channel = connection.channel()
    channel.confirm_select()
    try:
        channel.basic_publish_confirm(amqp.Message("{}", **properties), exchange, routing_key)
    except AccessRefused:
        return False
    channel.close()
    return True


def is_refused(connection, act):
    """Assert that the broker refuses the operation `act(channel)`."""
    with pytest.raises(AccessRefused):
        act(connection.channel())


def test_only_the_producer_of_an_event_may_publish_it(mine, me):
    sent = {name for name in EVENTS if sends(mine, EXCHANGE, name)}
    assert sent == {name for name, event in EVENTS.items() if event.producer == me}
    assert not sends(mine, EXCHANGE, "an.event.of.nobody")


def test_a_producer_may_log_events_under_its_own_name(mine, me):
    logged = {name for name in PROCESSES if sends(mine, LOGGED_EVENTS, name)}
    assert logged == ({me} if any(event.producer == me for event in EVENTS.values()) else set())


def test_only_the_gateway_may_read_the_event_log(mine, me):
    def read(channel):
        channel.basic_qos(0, 1, False)
        channel.basic_consume(EVENT_LOG, arguments={"x-stream-offset": "first"})

    if me == GATEWAY:
        with mine.channel() as channel:
            read(channel)
    else:
        is_refused(mine, read)
    is_refused(mine, lambda channel: channel.queue_delete(EVENT_LOG))
    is_refused(mine, lambda channel: channel.queue_bind(EVENT_LOG, EXCHANGE, "#"))
    own = f"{topology.reply_queue(me, str(new_id()))}"
    mine.channel().queue_declare(own, exclusive=True)
    is_refused(mine, lambda channel: channel.queue_bind(own, LOGGED_EVENTS, "#"))


def test_a_service_may_call_only_the_methods_that_it_calls(mine, me):
    allowed = {*CALLS.get(me, ()), f"{me}.*"}
    called = {method for method in METHODS if sends(mine, RPC_EXCHANGE, method)}
    assert called == {m for m in METHODS if m in allowed or f"{m.partition('.')[0]}.*" in allowed}
    assert not sends(mine, RPC_EXCHANGE, "payments.health.more")


def test_every_service_may_send_rpc_results(mine):
    assert sends(mine, RPC_EXCHANGE, str(new_id()))


def test_no_service_may_write_to_the_default_exchange(mine, me):
    others = ["rpc-orders", "payments.dead_letters", "amq.rabbitmq.reply-to.x", *(queue for _, queue in HANDLERS)]
    assert not [queue for queue in others if sends(mine, "", queue)]
    assert not [name for name in ("amq.topic", "amq.direct", "amq.fanout") if sends(mine, name, "order.created")]


def test_only_the_consumer_of_a_queue_may_retry_its_messages(mine, me):
    delays = [topology.retry_exchange(delay) for delay in topology.retry_delays()]
    for exchange in (AGAIN, *delays):
        sent = {queue for _, queue in HANDLERS if sends(mine, exchange, queue)}
        assert sent == {queue for service, queue in HANDLERS if service == me}


def test_no_service_may_forge_dead_letters(mine):
    assert not [service for service in SERVICES if sends(mine, DEAD_LETTERS, service)]


def test_no_service_may_read_purge_or_delete_queues_of_others(mine, me):
    queues = {queue for service, queue in HANDLERS if service != me}
    queues |= {topology.dead_letter_queue(service) for service, _ in HANDLERS if service != me}
    queues |= {topology.retry_exchange(delay) for delay in topology.retry_delays()}
    for queue in queues:
        is_refused(mine, lambda channel, queue=queue: channel.basic_get(queue))
        is_refused(mine, lambda channel, queue=queue: channel.basic_consume(queue))
        is_refused(mine, lambda channel, queue=queue: channel.queue_purge(queue))
        is_refused(mine, lambda channel, queue=queue: channel.queue_delete(queue))


def test_a_consumer_may_read_its_queues_but_not_delete_them(mine, me):
    for queue in [queue for service, queue in HANDLERS if service == me]:
        mine.channel().basic_get(queue)
        is_refused(mine, lambda channel, queue=queue: channel.queue_delete(queue))


def test_no_service_may_serve_the_calls_of_another(mine, me):
    for service in {*SERVICES, GATEWAY} - {me}:
        health = topology.health_queue(service, str(new_id()))
        is_refused(mine, lambda channel, queue=health: channel.queue_declare(queue, exclusive=True))
        queue = f"rpc-{service}"
        is_refused(mine, lambda channel, queue=queue: channel.queue_declare(queue, durable=True))
        is_refused(mine, lambda channel, queue=queue: channel.basic_consume(queue))


def test_no_service_may_bind_to_messages_of_others(mine, me):
    address = str(new_id())
    queue = mine.channel().queue_declare(topology.reply_queue(me, address), exclusive=True).queue
    mine.channel().queue_bind(queue, RPC_EXCHANGE, address)
    keys = {"#", "*", "*.*", "payments.#", "users.login", "*.health", "orders.health", "users.health"}
    overheard = [(RPC_EXCHANGE, key) for key in keys - {f"{me}.*", f"{me}.health"}]
    overheard += [(EXCHANGE, "#"), *((EXCHANGE, name) for name in EVENTS if me not in EVENTS[name].listeners)]
    overheard += [(AGAIN, "#"), *((exchange, "") for exchange in (DEAD_LETTERS, "amq.topic"))]
    for exchange, key in overheard:
        is_refused(mine, lambda channel, exchange=exchange, key=key: channel.queue_bind(queue, exchange, key))


def test_no_service_may_change_the_topology(mine):
    is_refused(mine, lambda channel: channel.exchange_declare("mine", "topic"))
    is_refused(mine, lambda channel: channel.queue_declare("mine"))
    for exchange in (EXCHANGE, AGAIN, RPC_EXCHANGE, DEAD_LETTERS):
        is_refused(mine, lambda channel, exchange=exchange: channel.exchange_delete(exchange))
        is_refused(mine, lambda channel, exchange=exchange: channel.exchange_bind(exchange, EXCHANGE, "#"))


def test_the_operator_may_call_every_service_and_do_nothing_else(environment):
    with connect(environment[uri_variable(OPERATOR)]) as connection:
        assert [method for method in METHODS if sends(connection, RPC_EXCHANGE, method)] == list(METHODS)
        assert not [name for name in EVENTS if sends(connection, EXCHANGE, name)]
        assert not [queue for _, queue in HANDLERS if sends(connection, "", queue) or sends(connection, AGAIN, queue)]
        is_refused(connection, lambda channel: channel.basic_get("orders.on_stock_failed"))


def test_a_wrong_password_is_refused(environment):
    with pytest.raises(AccessRefused):  # with the password of another service
        connect(environment[uri_variable("payments")].replace("//payments:", "//orders:"))


def test_h8_a_publisher_without_permission_to_declare_queues_publishes_nothing_without_them(servers, environment):
    publisher, event = ConfirmedPublisher(), OutgoingMessage(EXCHANGE, "order.shipped", "{}", str(new_id()))
    publisher.container = SimpleNamespace(
        service_name="orders", spawn_managed_thread=lambda run, **_identifier: eventlet.spawn(run)
    )
    with nameko.config.patch({"AMQP_URIS": {"orders": environment["ORDERS_AMQP_URI"]}}), connect() as administrator:
        channel = administrator.channel()
        channel.queue_delete("notifications.on_order_shipped")
        try:
            with pytest.raises(topology.TopologyMissing, match=r"notifications\.on_order_shipped"):
                publisher.publish_one(event)
        finally:
            topology.declare(channel)
        assert channel.basic_get("notifications.on_order_shipped") is None
        assert eventually(lambda: publisher.publish([event]).confirmed) == {event.message_id}
        assert channel.basic_get("notifications.on_order_shipped", no_ack=True) is not None
        publisher.stop()
