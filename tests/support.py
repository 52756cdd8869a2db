"""Helpers of the tests: RPC calls as from `nameko shell`, publishing and receiving events as an external program."""

import json
import os
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from uuid import uuid4

import amqp
import eventlet
import sqlalchemy
from amqp.exceptions import AMQPError, NotFound
from kombu.utils.url import parse_url
from nameko import config
from sqlalchemy.exc import IntegrityError

from contracts.errors import ServiceError
from contracts.events import EVENTS, EXCHANGE
from contracts.ids import new_id
from extensions.messaging import topology
from extensions.messaging.topology import RPC_EXCHANGE
from extensions.rpc.client import RemoteServices
from extensions.runtime.addresses import database_url, owner_database_url

IS_PLAIN_WIRE = os.environ.get("AMQP_WIRE") == "plain"
"""Whether this run is `make test-plain`, without our overrides of py-amqp and Nameko."""

# A mark in the statements that empty tables between tests, so that test_plans can ignore them.
RESET = "/* reset between tests */ "
# The time limit of a wait, in seconds. It only matters if a test fails, so it is long enough for the slowest machine.
TEST_TIMEOUT_SECONDS = float(os.environ.get("TEST_TIMEOUT_SECONDS", "180"))
# The pauses between two checks of a wait, in seconds, and the share of the time waited that the next pause takes.
MIN_PAUSE, MAX_PAUSE, PAUSE_SHARE = 0.02, 0.25, 0.05
SIZES = (
    "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)
SMALL_TABLE_BYTES = 1_000_000


def connect(uri=None):
    """A connection to the test broker, with the administrator's user or that of `uri`."""
    address = parse_url(uri or config["AMQP_URI"])
    connection = amqp.Connection(
        host=f"{address['hostname']}:{address['port']}",
        userid=address["userid"],
        password=address["password"],
        virtual_host=address["virtual_host"] or "/",
        heartbeat=0,
    )
    connection.connect()
    return connection


def eventually(check, timeout=TEST_TIMEOUT_SECONDS, pause=None):
    """Call `check()` until its result is truthy, and return the result. Fails after `timeout` seconds.

    The timeout is at least TEST_TIMEOUT_SECONDS, because it only matters if a test fails. Without `pause` the pauses
    grow with the time waited, because a check can cost more processor time than what it waits for.
    """
    timeout = max(timeout, TEST_TIMEOUT_SECONDS)
    began = time.monotonic()
    while True:
        problem = None
        try:
            result = check()
        except AssertionError as error:
            result, problem = None, error
        if result:
            return result
        waited = time.monotonic() - began
        if waited > timeout:
            raise AssertionError(f"not true within {timeout} s: {problem or result!r}")
        eventlet.sleep(pause or min(MAX_PAUSE, max(MIN_PAUSE, waited * PAUSE_SHARE)))


def stated(request):
    """Return the fields of a request that are set, as plain JSON, as they are sent to the services."""
    return request.model_dump(mode="json", exclude_unset=True)


def await_replies(channel, callback):
    """Consume the replies to calls. Returns the `reply_to` for these calls."""
    address = str(uuid4())
    queue = channel.queue_declare(topology.reply_queue("tests", address), exclusive=True).queue
    channel.queue_bind(queue, RPC_EXCHANGE, address)
    channel.basic_consume(queue, no_ack=True, callback=callback)
    return address


class Caller:
    """Calls RPC methods: `caller.orders.get_order(order_id)`. Raises the ServiceError that the service raised."""

    def __init__(self, timeout=TEST_TIMEOUT_SECONDS, headers=None):
        self._timeout = timeout
        self._headers = headers

    def __getattr__(self, service):
        return _Methods(self, service)

    def call(self, service, method, args, kwargs):
        with _open_link() as link:
            correlation_id = str(uuid4())
            request = amqp.Message(
                json.dumps({"args": args, "kwargs": kwargs}),
                content_type="application/json",
                reply_to=link.address,
                correlation_id=correlation_id,
                expiration=str(int(self._timeout * 1000)),
                application_headers=self._headers or {},
            )
            link.channel.basic_publish(request, RPC_EXCHANGE, f"{service}.{method}", mandatory=True)
            reply = link.await_reply(correlation_id, self._timeout)
        if reply is None:
            raise AssertionError(f"{service} is not running")
        if reply["error"]:
            raise ServiceError.from_wire(reply["error"]["problem"])
        return reply["result"]


class _Link:
    """A connection with a channel and a queue for replies to calls."""

    def __init__(self):
        self.connection = connect()
        self.channel = self.connection.channel()
        self._replies = {}  # correlation id -> the reply, or None if no queue took the call
        self.address = await_replies(self.channel, self._receive)
        self.channel.events["basic_return"].add(self._receive_returned)

    def _receive(self, message):
        self._replies[message.properties["correlation_id"]] = json.loads(message.body)

    def _receive_returned(self, _problem, _exchange, _key, message):
        self._replies[message.properties["correlation_id"]] = None

    def await_reply(self, correlation_id, timeout):
        """Return the reply to a call; None if no queue took the call."""
        while correlation_id not in self._replies:
            self.connection.drain_events(timeout=timeout)
        return self._replies.pop(correlation_id)

    def is_open(self):
        """Tell whether the broker has not closed the connection since its last use."""
        try:
            self.connection.drain_events(timeout=0.0001)
        except TimeoutError:
            return self.connection.connected and self.channel.is_open
        except (AMQPError, OSError):
            return False
        return False  # it was in use, or the broker says that it closes it

    def close(self):
        """Close the connection, also if it is broken."""
        with suppress(AMQPError, OSError):
            self.connection.close()


_links = defaultdict(list)  # address of the broker -> links that are not in use


@contextmanager
def _open_link():
    """A link that is used by nothing else within the block. It stays open for the next: to open one takes longer than a
    call. After an error it is closed.
    """
    free = _links[config["AMQP_URI"]]
    link = None
    while link is None and free:
        link = free.pop()
        if not link.is_open():
            link.close()
            link = None
    link = link or _Link()
    try:
        yield link
    except BaseException:
        link.close()
        raise
    free.append(link)


class _Methods:
    def __init__(self, caller, service):
        self._caller, self._service = caller, service

    def __getattr__(self, method):
        return lambda *args, **kwargs: self._caller.call(self._service, method, args, kwargs)


class FakeServices(RemoteServices):
    """The typed client of a service, whose calls go to a fake: `fake.orders.get_order(order_id="...", actor={...})`."""

    def __init__(self, fake):
        super().__init__(self._call_fake, timeout=0)
        self._fake = fake

    def within(self, seconds):
        return FakeServices(self._fake.within(seconds))

    def _call_fake(self, service, method, args, kwargs, _timeout):
        return getattr(getattr(self._fake, service), method)(*args, **json.loads(json.dumps(kwargs)))


class Bus:
    """The events exchange: publishes events, and receives all events that are published."""

    def __init__(self):
        self.connection = connect()
        self.channel = self.connection.channel()
        self.channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
        self.queue = self.channel.queue_declare(exclusive=True).queue
        self.channel.queue_bind(self.queue, EXCHANGE, "#")
        self.channel.basic_consume(self.queue, no_ack=True, callback=self._receive)
        self.messages = []

    def _receive(self, message):
        self.messages.append(message)

    def publish(self, event, message_id=None, **properties):
        """Publish an event object; returns its message id, under which it can be published again."""
        message_id = str(message_id or new_id())
        self.publish_raw(event.event_type, event.to_json(), message_id=message_id, **properties)
        return message_id

    def publish_raw(self, routing_key, body, exchange=EXCHANGE, **properties):
        """Publish any bytes with any properties."""
        defaults = {"content_type": "application/json", "delivery_mode": 2}
        # Confirmed: the message is in its queues when the next test purges them.
        self.channel.basic_publish_confirm(amqp.Message(body, **(defaults | properties)), exchange, routing_key)

    def events(self, event_type=None, correlation_id=None):
        """All events received so far, decoded by their contracts, oldest first.

        It first receives for longer than the relay's pause between batches, so that no published event is missing.
        """
        with suppress(OSError):
            while True:
                self.connection.drain_events(timeout=0.1)
        return [
            EVENTS[message.properties["type"]].model_validate_json(message.body)
            for message in self.messages
            if "type" in message.properties
            and event_type in (None, message.properties["type"])
            and correlation_id in (None, message.properties.get("correlation_id"))
        ]

    def wait_for(self, event_type, correlation_id=None, count=1, timeout=TEST_TIMEOUT_SECONDS):
        """Wait for `count` events of a type, and return them."""
        wanted = None if correlation_id is None else str(correlation_id)
        return eventually(lambda: (found := self.events(event_type, wanted)) and len(found) >= count and found, timeout)

    def is_drained(self, queue):
        """Tell whether `queue` has no ready messages (delivered messages without an ack are not counted)."""
        return self.channel.queue_declare(queue, passive=True).message_count == 0

    def close(self):
        """Close the connection."""
        self.connection.close()


def service_class(service):
    """The class of a service by its name: `service_class("orders")` is OrdersService."""
    module = import_module(f"{service}.service")
    return next(one for one in vars(module).values() if getattr(one, "name", None) == service)


def database(service):
    """An engine for a service's database, with the service's own role."""
    return _engine(database_url(config, service))


def owned_database(service):
    """An engine for a service's database with the role of its migrations, which may change the tables."""
    return _engine(owner_database_url(config, service))


@cache
def _engine(url):
    """One engine for all tests: a new connection takes ten times as long as most statements of tests."""
    return sqlalchemy.create_engine(url, pool_pre_ping=True, max_overflow=20)


def purge_queues():
    """Delete all messages of earlier tests from the queues, including the retry queues."""
    try:
        with _open_link() as link:
            _purge(link.channel)
    except NotFound:  # the topology is not declared yet, or a test has deleted a part of it
        with _open_link() as link:
            topology.declare(link.channel)
            _purge(link.channel)


def are_empty(queues):
    """Whether no message waits in any of these queues."""
    with _open_link() as link:
        return not any(link.channel.queue_declare(queue, passive=True).message_count for queue in queues)


def _purge(channel):
    for queue in _queues(tuple(topology.retry_delays())):
        if channel.queue_declare(queue, passive=True).message_count:
            channel.queue_purge(queue)


@cache
def _queues(_retry_delays):
    plan = topology.Plan()
    topology.declare(plan)
    return [queue for queue in plan.queues if queue != topology.EVENT_LOG]  # the broker cannot purge a stream


def empty_database(service):
    """Delete all rows of a service's tables, also if a transaction of the service commits some just now."""
    eventually(lambda: _delete_all_rows(service))


def _delete_all_rows(service):
    """Delete the rows; returns False if another transaction added rows that refer to them."""
    try:
        _delete_rows(service)
    except IntegrityError:
        return False
    return True


def _delete_rows(service):
    engine = owned_database(service)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("SET LOCAL lock_timeout = '60s'; SET LOCAL synchronous_commit = off"))
        sizes = dict(connection.execute(sqlalchemy.text(SIZES)).all())
        filled = [table for table in _tables(service) if sizes[table]]
        if any(sizes[table] > SMALL_TABLE_BYTES for table in filled):
            connection.execute(sqlalchemy.text(f"TRUNCATE {', '.join(filled)} CASCADE"))
        elif filled:  # a TRUNCATE makes new files, which takes longer than to delete a few rows
            connection.execute(sqlalchemy.text("; ".join(f"{RESET}DELETE FROM {table}" for table in filled)))


@cache
def _tables(service):
    """The tables of a service, those that refer to others first."""
    with owned_database(service).connect() as connection:
        ordered = sqlalchemy.inspect(connection).get_sorted_table_and_fkc_names()
    return [name for name, _ in reversed(ordered) if name not in {None, "alembic_version"}]
