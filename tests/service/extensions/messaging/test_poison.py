"""Poison messages: the service survives each, stores it with the reason, and handles the next message."""

import json
import os
import time
from unittest.mock import Mock

import amqp
import eventlet
import pytest
import sqlalchemy
from greenlet import GreenletExit
from nameko.containers import get_container_cls

from contracts.errors import ServiceUnavailable, UpstreamTimeout
from contracts.events import EXCHANGE, queue_name
from contracts.ids import new_id
from contracts.orders import OrderShipped
from contracts.users import UserUpdated
from extensions.messaging import listener, sender, topology
from extensions.messaging.dead_letters import MAX_REQUEUES, REQUEUES_HEADER, DeadLetters
from extensions.messaging.event_handler import handles
from extensions.messaging.retries import attempts_of
from extensions.messaging.topology import DEAD_LETTERS, RPC_EXCHANGE
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.engine import DatabaseUnavailable
from extensions.storage.unit_of_work import Work
from gateway.service import GatewayService
from notifications.models import Base
from tests import poison
from tests.poison import Poison, longstr, nested_arrays, with_header
from tests.service.conftest import prepare
from tests.stopwatch import Stopwatch
from tests.support import IS_PLAIN_WIRE, Caller, connect, database, eventually

QUEUE = queue_name("notifications", OrderShipped)
SOON = 2.0
HANDLED = []
FAILURES = {}


class Victim(operations.Operations):
    """Takes the place of notifications, and receives one event and one call."""

    name = "notifications"
    work = Work(Base)

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        for received in events:
            order_id = str(received.event.order_id)
            if order_id in FAILURES:
                raise FAILURES[order_id]
            HANDLED.append(order_id)

    @rpc
    def echo(self, *args, **kwargs):
        return [args, kwargs]


@pytest.fixture(scope="module")
def victims(servers):
    """The process of the service: all tests use the same one, as long as it lives. A start takes longer than a test."""
    prepare("notifications")
    running = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listener, "garbage", Mock())  # see run_service
        yield running
        for container in running:
            container.stop()


@pytest.fixture
def victim(victims):
    """The running service, without dead letters of earlier tests."""
    HANDLED.clear()
    FAILURES.clear()
    with database("notifications").begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM dead_letters"))
    if not victims or victims[-1]._died.ready():
        victims[:] = [get_container_cls()(Victim)]
        victims[-1].start()
    return victims[-1]


class Sender:
    """Publishes and receives nothing: py-amqp in this process could not read every message that it sends."""

    def __init__(self, channel):
        self.channel = channel

    def publish(self, event):
        self.publish_raw(event.event_type, event.to_json(), message_id=str(new_id()))

    def publish_raw(self, routing_key, body, exchange=EXCHANGE, **properties):
        message = amqp.Message(body, **({"content_type": "application/json", "delivery_mode": 2} | properties))
        self.channel.basic_publish(message, exchange, routing_key)

    def is_drained(self, queue):
        return self.channel.queue_declare(queue, passive=True).message_count == 0


@pytest.fixture
def bus(servers):
    with connect() as connection:
        yield Sender(connection.channel())


def shipped():
    return OrderShipped(order_id=new_id(), user_id=new_id())


GOOD = json.loads(shipped().to_json())


def letters():
    with database("notifications").connect() as connection:
        return connection.execute(sqlalchemy.text("SELECT * FROM dead_letters ORDER BY id")).all()


def the_letter():
    timeout = 2 * float(os.environ["HTTP_DEADLINE_SECONDS"])  # longer on a slow machine
    began = Stopwatch()
    (letter,) = eventually(letters, timeout)
    assert began.seconds < timeout, "the whole process was blocked"
    return letter


def assert_well(victim, bus, caller):
    """The same service handles the next event and the next call within SOON."""
    event = shipped()
    bus.publish(event)
    began = Stopwatch()
    assert caller.notifications.echo("ping") == [["ping"], {}]
    eventually(lambda: str(event.order_id) in HANDLED, timeout=SOON)
    assert began.seconds < SOON
    assert not victim._died.ready()
    assert not poison.TRAP.exists()


@pytest.mark.parametrize("what", poison.invalid_events(GOOD, "order_id", "order.delivered"), ids=str)
def test_pitfall_07_an_invalid_event_becomes_a_dead_letter_with_the_reason(victim, bus, caller, what):
    what.publish(bus.channel, "events", "order.shipped")
    letter = the_letter()
    assert what.reason in letter.error
    assert letter.queue == QUEUE
    assert_well(victim, bus, caller)
    assert len(letters()) == 1


@pytest.mark.parametrize("what", poison.INVALID_CALLS, ids=str)
def test_pitfall_05_an_invalid_call_becomes_a_dead_letter_with_the_reason(victim, bus, caller, what):
    what.publish(bus.channel, RPC_EXCHANGE, "notifications.echo", reply_to="nowhere")
    letter = the_letter()
    assert what.reason in letter.error
    assert letter.queue == "rpc-notifications"
    assert_well(victim, bus, caller)
    assert len(letters()) == 1


ODD_CALLS = {
    "to nowhere": {"reply_to": "nowhere"},
    "to an exchange's name": {"reply_to": "amq.topic"},
    "to a forged direct reply-to": {"reply_to": "amq.rabbitmq.reply-to.nowhere"},
    "to the longest address": {"reply_to": "x" * 255},
    "with the longest correlation_id": {"reply_to": "nowhere", "correlation_id": "9" * 255},
    "without correlation_id": {"reply_to": "nowhere", "correlation_id": None},
    "by an unknown type": {"reply_to": "nowhere", "type": "order.shipped"},
    "half a surrogate pair": {"reply_to": "nowhere", "body": '{"args": ["\\ud800"], "kwargs": {"\\udfff": "\\u0000"}}'},
    "arguments twice": {"reply_to": "nowhere", "body": '{"args": [], "args": [1], "kwargs": {}}'},
    "an infinite number": {"reply_to": "nowhere", "body": '{"args": [1e999], "kwargs": {}}'},
    "an argument twice": {"reply_to": "nowhere", "body": '{"args": [1], "kwargs": {"self": 2}}'},
}


@pytest.mark.parametrize("odd", ODD_CALLS.values(), ids=ODD_CALLS)
def test_pitfall_05_undeliverable_results_do_no_harm(victim, bus, caller, odd):
    call = {"body": '{"args": [], "kwargs": {}}', "correlation_id": "c"} | odd
    for _ in range(40):  # more than the prefetch
        bus.publish_raw("notifications.echo", exchange=RPC_EXCHANGE, **call)
    assert_well(victim, bus, caller)
    assert letters() == []


def test_pitfall_05_a_forged_address_makes_the_broker_close_no_connection(victim, bus, caller):
    sending = victim.shared_extensions[sender.Sender]._connection
    connection = sending.connection
    address = "amq.rabbitmq.reply-to.g1h2AA5yZXBseUAxMjM0NTY3OAAAAAAAAAAAAAAAAA==.a"
    bus.publish_raw("notifications.echo", '{"args": [], "kwargs": {}}', exchange=RPC_EXCHANGE, reply_to=address)
    eventually(lambda: survives(lambda: caller.notifications.echo(1)))
    assert_well(victim, bus, caller)
    assert sending.connection is connection


@pytest.mark.skipif(IS_PLAIN_WIRE, reason="py-amqp cannot read a routing key that is not UTF-8")
@pytest.mark.parametrize("method", [b"\xff", b"echo\xc3", b"\xed\xa0\x80"])
def test_pitfall_05_a_method_name_that_is_not_utf_8_does_no_harm(victim, bus, caller, method):
    call = {"reply_to": "nowhere", "correlation_id": "c"}
    bus.publish_raw(b"notifications." + method, '{"args": [], "kwargs": {}}', exchange=RPC_EXCHANGE, **call)
    assert_well(victim, bus, caller)


def survives(call):
    try:
        return call()
    except (ServiceUnavailable, UpstreamTimeout):  # the result of a call in progress is unknown
        return False


ODD_HEADERS = {
    "900 lists deep": with_header(b"x-request-id", nested_arrays(900)),
    "100 kB": with_header(b"x-request-id", b"S" + longstr(b"\xff" * 100_000)),
    "a name of bytes": with_header(b"\xff" * 255, b"V"),
    "NUL": with_header(b"traceparent", b"S" + longstr(b"\x00")),
    "a huge number of attempts": with_header(b"x-attempts", b"l" + b"\x7f" + b"\xff" * 7),
    "a negative number of attempts": with_header(b"x-attempts", b"l" + b"\x80" + b"\x00" * 7),
    "attempts in words": with_header(b"x-attempts", b"S" + longstr(b"many")),
    "attempts in a list": with_header(b"x-attempts", nested_arrays(3)),
}


@pytest.mark.parametrize("headers", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_pitfall_09_a_failed_event_with_invalid_headers_becomes_a_dead_letter(victim, bus, caller, headers):
    bad = shipped()
    FAILURES[str(bad.order_id)] = RuntimeError("intended failure")
    Poison("odd", "", bad.to_json(), raw=headers).publish(bus.channel, "events", "order.shipped")
    letter = the_letter()
    assert "intended failure" in letter.error
    assert_well(victim, bus, caller)


DEATHS = {
    "no list": {"x-death": "garbage"},
    "no table": {"x-death": [7]},
    "a huge count": {"x-death": [{"queue": 7, "count": 10**15}]},
    "a negative count": {"x-death": [{"queue": QUEUE, "reason": ["why"], "count": -1}]},
    "nested": {"x-nested": {"deep": [{"deeper": 0.5}]}},
}
DEEP_REASON = b"A" + longstr(b"F" + longstr(b"\x06reason" + nested_arrays(900)))
RAW_DEATHS = {"a reason 900 lists deep": with_header(b"x-death", DEEP_REASON)}
IN_THE_DEAD_LETTER_QUEUE = [
    *(
        Poison(name, "dead-lettered by the broker", properties={"application_headers": it})
        for name, it in DEATHS.items()
    ),
    *(Poison(name, "dead-lettered by the broker", raw=raw) for name, raw in RAW_DEATHS.items()),
    *(
        Poison(f"with {one}", "dead-lettered by the broker", one.body, one.properties, one.raw)
        for one in poison.ANYWHERE
    ),
]


@pytest.mark.parametrize("what", IN_THE_DEAD_LETTER_QUEUE, ids=str)
def test_pitfall_07_any_message_can_be_stored_as_a_dead_letter(victim, bus, caller, what):
    what.publish(bus.channel, DEAD_LETTERS, "notifications")
    letter = the_letter()
    assert what.reason in letter.error
    assert letter.attempts >= 0
    eventually(lambda: bus.is_drained(topology.dead_letter_queue("notifications")))
    assert_well(victim, bus, caller)


def test_pitfall_07_a_thousand_invalid_events_delay_the_next_event_only_briefly(victim, bus, caller):
    for number in range(1000):
        bus.publish_raw("order.shipped", "{" * (number % 7), message_id=str(new_id()))
    event = shipped()
    bus.publish(event)
    eventually(lambda: str(event.order_id) in HANDLED, timeout=15)
    assert len(letters()) == 1000
    assert_well(victim, bus, caller)


def test_pitfall_05_a_thousand_invalid_calls_delay_the_next_call_only_briefly(victim, bus, caller):
    for number in range(1000):
        bus.publish_raw("notifications.echo", "{" * (number % 7), exchange=RPC_EXCHANGE)
    assert Caller(timeout=30).notifications.echo(1) == [[1], {}]
    eventually(lambda: len(letters()) == 1000)
    assert_well(victim, bus, caller)


def test_an_invalid_call_during_an_outage_of_the_database_becomes_a_dead_letter(victim, bus, caller, monkeypatch):
    tries, store = [], DeadLetters._insert_together

    def fail_twice(self, rows):
        tries.append(rows)
        if len(tries) <= 2:
            raise DatabaseUnavailable
        store(self, rows)

    monkeypatch.setattr(DeadLetters, "_insert_together", fail_twice)
    bus.publish_raw("notifications.echo", "[]", RPC_EXCHANGE, reply_to="nowhere")
    assert "no call" in the_letter().error
    assert_well(victim, bus, caller)
    assert len(letters()) == 1


@pytest.mark.parametrize("interruption", [eventlet.Timeout, GreenletExit, SystemExit], ids=lambda kind: kind.__name__)
def test_pitfall_04_no_interruption_of_a_handler_ends_the_service(victim, bus, caller, interruption):
    bad = shipped()
    FAILURES[str(bad.order_id)] = interruption()
    bus.publish(bad)
    assert interruption.__name__ in the_letter().error
    assert_well(victim, bus, caller)


def test_messages_that_the_broker_dead_letters_are_stored(victim, bus):
    headers = {"x-death": [{"queue": QUEUE, "reason": "delivery_limit", "count": 20}], REQUEUES_HEADER: MAX_REQUEUES}
    bus.publish_raw("notifications", shipped().to_json(), exchange=DEAD_LETTERS, application_headers=headers)
    letter = the_letter()
    assert (letter.queue, letter.attempts) == (QUEUE, 20)
    assert "delivery_limit" in letter.error


@pytest.fixture
def gateway(run_service):
    container = run_service(GatewayService)
    (provider,) = [one for one in container.dependencies if one.attr_name == "tokens"]
    container.updates = provider.shared.verified._updates
    return container


UPDATED = {"user_id": str(new_id()), "roles": ["customer"], "is_active": False, "at": "2026-01-01T00:00:00Z"}


def test_pitfall_07_invalid_broadcasts_do_gateways_no_harm(gateway, bus):
    for what in poison.invalid_events(UPDATED, "user_id", "user.registered"):
        what.publish(bus.channel, "events", "user.updated")
        update = UserUpdated.model_validate(UPDATED | {"user_id": str(new_id()), "at": time_now()})
        bus.publish(update)
        eventually(lambda update=update: update.user_id in {one.user_id for one in gateway.updates.values()}, SOON)
        assert not gateway._died.ready(), what


def time_now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@pytest.mark.parametrize("attempts", [float("inf"), float("nan"), None, [3], {}, "many", "3.5", "9" * 5000])
def test_pitfall_09_an_invalid_number_of_attempts_counts_as_zero(attempts):
    # RabbitMQ 3.10 refuses the first two; other brokers need not.
    assert attempts_of(amqp.Message("", application_headers={"x-attempts": attempts})) == 0


@pytest.mark.parametrize("what", poison.UNREADABLE, ids=str)
def test_py_amqp_alone_cannot_read_unreadable_messages(servers, what):
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare(exclusive=True).queue
    what.publish(channel, "", queue)
    with pytest.raises((RecursionError, ValueError, OverflowError)):
        channel.basic_get(queue, no_ack=True)
    connection.collect()
