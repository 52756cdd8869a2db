"""Nameko's pitfalls, by their numbers in docs/reliability.md. Each test fails when our remedy is taken out."""

import ast
import contextlib
import os
import subprocess
from pathlib import Path

import amqp
import eventlet
import nameko
import pytest
import sqlalchemy
from nameko.containers import get_container_cls

from contracts.errors import InternalError, ServiceUnavailable, UpstreamTimeout
from contracts.events import EVENTS, queue_name
from contracts.ids import new_id
from contracts.orders import OrderDelivered, OrderShipped
from contracts.services import PROCESSES
from deploy.local import install
from extensions.http.message.request import Access
from extensions.http.routing.dispatcher import HttpServer
from extensions.http.routing.route import route
from extensions.messaging import topology
from extensions.messaging.event_handler import handles
from extensions.messaging.listener import Listener
from extensions.messaging.topology import RPC_EXCHANGE
from extensions.operations import operations
from extensions.rpc.client import PendingCalls
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from qa.support.free_ports import free_address
from tests.service.extensions.toy import Calls
from tests.stopwatch import Stopwatch
from tests.support import TEST_TIMEOUT_SECONDS, Caller, connect, database, eventually

ROOT = Path(__file__).parent.parent.parent.parent
QUEUE = queue_name("notifications", OrderShipped)
SEEN = []
GATES = {}
FAILURES = {}


class Subject(operations.Operations):
    """Takes the place of notifications, and does what unmodified Nameko fails at."""

    name = "notifications"
    work = Work(Base)
    call = Calls()

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        for received in events:
            order_id = str(received.event.order_id)
            SEEN.append(order_id)
            if order_id in GATES:
                GATES[order_id].wait()
            if FAILURES.get(order_id):
                raise FAILURES[order_id].pop()
            self.work.publish(OrderDelivered(order_id=received.event.order_id, user_id=new_id()), cause=received)

    @rpc
    def echo(self, *args):
        return list(args)

    @rpc(transaction=False)
    def sleep(self, seconds):
        eventlet.sleep(seconds)
        return "slept"

    @rpc(transaction=False)
    def ask(self, service, method, timeout, *args):
        return self.call(service, method, args, {}, timeout)

    @rpc
    def run_into_a_timeout_with_the_database(self):
        self.work.session.execute(sqlalchemy.text("SELECT 1"))
        raise eventlet.Timeout


@pytest.fixture
def subject(run_service):
    SEEN.clear()
    GATES.clear()
    FAILURES.clear()
    return run_service(Subject)


@pytest.fixture
def channel(servers):
    with connect() as connection:
        yield connection.channel()


def shipped():
    return OrderShipped(order_id=new_id(), user_id=new_id())


def count(table):
    with database("notifications").connect() as connection:
        return connection.scalar(sqlalchemy.text(f"SELECT count(*) FROM {table}"))


def waiting(channel, queue):
    return channel.queue_declare(queue, passive=True).message_count


def pending(container):
    return container.shared_extensions[PendingCalls]._pending


def test_pitfall_01_an_event_in_progress_at_the_stop_is_acknowledged(subject, bus, channel):
    event = shipped()
    GATES[str(event.order_id)] = eventlet.Event()
    bus.publish(event)
    eventually(lambda: SEEN)
    stopping = eventlet.spawn(subject.stop)
    eventlet.sleep(0.2)  # it waits for the handler, which cannot be observed
    GATES[str(event.order_id)].send()
    stopping.wait()
    assert count("inbox") == 1
    assert waiting(channel, QUEUE) == 0
    assert len(SEEN) == 1


@pytest.fixture
def silent(channel):
    """A service with a queue, which never replies."""
    queue = channel.queue_declare("rpc-silent", exclusive=True).queue
    channel.queue_bind(queue, RPC_EXCHANGE, "silent.*")
    return queue


def test_pitfall_02_a_call_has_a_deadline(subject, caller, silent):
    began = Stopwatch()
    with pytest.raises(UpstreamTimeout):
        caller.notifications.ask("silent", "anything", 0.5)
    assert began.seconds < 3


def test_pitfall_02_a_call_expires_with_the_deadline_of_its_caller(subject, caller, silent, channel):
    with pytest.raises(UpstreamTimeout):
        caller.notifications.ask("silent", "anything", 0.5)
    eventually(lambda: waiting(channel, silent) == 0, timeout=3)


def test_pitfall_02_a_call_to_a_missing_service_fails_at_once(subject, caller):
    began = Stopwatch()
    with pytest.raises(ServiceUnavailable, match="absent"):
        caller.notifications.ask("absent", "anything", 4.0)
    assert began.seconds < 2


def test_pitfall_02_no_pending_call_is_left(subject, caller, silent):
    for service in ("silent", "absent", "notifications"):
        with contextlib.suppress(UpstreamTimeout, ServiceUnavailable):
            caller.notifications.ask(service, "echo", 0.3)
    assert pending(subject) == {}


def test_pitfall_03_a_timeout_in_a_method_releases_its_database_connection(subject, caller):
    for _ in range(60):  # more than the workers, and more than the connections of the pool
        with pytest.raises(InternalError):
            caller.notifications.run_into_a_timeout_with_the_database()
    assert caller.notifications.echo("still") == ["still"]
    (work,) = [one for one in subject.dependencies if one.attr_name == "work"]
    eventually(lambda: work.engine.pool.checkedout() == 0, timeout=2)


def test_pitfall_06_a_service_survives_an_outage_of_the_broker_during_a_reply(broker_outage, subject):
    call = eventlet.spawn(attempt, lambda: Caller(timeout=30).notifications.sleep(1.0))
    eventlet.sleep(0.4)  # the call is in progress, which cannot be observed
    with broker_outage():
        eventlet.sleep(1.0)  # it tries to reply, and cannot
    assert eventually(lambda: attempt(lambda: Caller().notifications.echo(1)) == [1], timeout=30)
    assert not subject._died.ready()
    call.wait()


def attempt(call):
    try:
        return call()
    except (OSError, amqp.AMQPError, AssertionError, ServiceUnavailable):
        return None


def test_pitfall_10_headers_of_a_message_are_not_copied_to_later_ones(subject, bus, caller):
    event = shipped()
    FAILURES[str(event.order_id)] = [RuntimeError("once")]
    bus.publish(event, application_headers={"x-request-id": "r-1", "x-secret": "s"})
    bus.wait_for("order.delivered", str(event.order_id))
    assert len(SEEN) == 2
    (published,) = [one for one in bus.messages if one.properties.get("type") == "order.delivered"]
    assert set(published.headers) == {"x-request-id", "traceparent", "causation-id"}
    assert published.headers["x-request-id"] == "r-1"


def test_pitfall_10_a_retry_keeps_only_the_trace_headers(subject, bus, channel):
    event = shipped()
    FAILURES[str(event.order_id)] = [RuntimeError("always")] * 100
    bus.publish(event, application_headers={"x-request-id": "r-1", "x-secret": "s"})
    eventually(lambda: count("dead_letters"))
    with database("notifications").connect() as connection:
        headers = connection.scalar(sqlalchemy.text("SELECT headers FROM dead_letters"))
    # The broker adds x-death, x-first-death-* and, from version 4 on, x-last-death-*.
    assert {name for name in headers if "death" not in name} == {"x-request-id", "x-attempts"}


def test_pitfall_13_no_service_uses_the_standalone_client():
    folders = ("contracts", "extensions", *PROCESSES)
    for file in [path for folder in folders for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("nameko.standalone") for name in names), file


def test_pitfall_14_calls_declare_no_queues_and_leave_none(subject, caller, servers):
    before = queues(servers.rabbitmq)
    declared = []
    listening = subject.shared_extensions[Listener]._connection.connection
    for one in listening.channels.values():
        if one.channel_id:
            one.queue_declare = lambda *args, **_kwargs: declared.append(args)
    for number in range(30):
        assert caller.notifications.ask("notifications", "echo", 3.0, number) == [number]
    assert declared == []
    assert queues(servers.rabbitmq) == before
    known = {queue_name(service, event) for event in EVENTS.values() for service in event.consumers}
    known |= {topology.dead_letter_queue(queue.partition(".")[0]) for queue in known}
    known |= {name for name in before if name.startswith(f"{topology.AGAIN}.")}  # retry queues of other tests too
    known.add(topology.EVENT_LOG)
    reply_queues = {name for name in before if name.startswith("rpc.reply-notifications-")}
    assert len(reply_queues) == 1
    assert {name for name in before - known - reply_queues if not name.startswith("rpc-")} == set()
    subject.stop()
    assert not reply_queues & queues(servers.rabbitmq)


def queues(rabbitmq):
    """The names of all queues, listed by rabbitmqctl, without those of the shells and the callers of other tests."""
    tool = install.rabbitmq().with_name("rabbitmqctl")
    user, group = rabbitmq.user() or (None, None)
    answer = subprocess.run(
        [tool, "--node", "order-suite@localhost", "--quiet", "list_queues", "name", "--no-table-headers"],
        env=os.environ | rabbitmq.environment(),
        cwd="/",
        user=user,
        group=group,
        capture_output=True,
        text=True,
        timeout=TEST_TIMEOUT_SECONDS,
        check=True,
    )
    others = ("standalone_rpc_client", "rpc.reply-tests-")
    return {name for name in answer.stdout.split() if not any(other in name for other in others)}


class Gateway:
    """Serves one route on a port that another gateway may share."""

    @route("GET", "/who", access=Access.ANYONE)
    def who(self, _request):
        return {}


def test_pitfall_15_two_gateways_share_a_port_and_one_can_stop(servers):
    import httpx

    with nameko.config.patch({"WEB_SERVER_ADDRESS": free_address()}):
        address = nameko.config["WEB_SERVER_ADDRESS"]
        first, second = (start_gateway(name) for name in ("one", "two"))
        try:
            assert first.shared_extensions[HttpServer].port == second.shared_extensions[HttpServer].port
            first.stop()
            answers = [httpx.get(f"http://{address}/who", timeout=5, verify=False).status_code for _ in range(20)]
            assert answers == [200] * 20
        finally:
            for container in (first, second):
                container.stop()


def start_gateway(name):
    container = get_container_cls()(type("NamedGateway", (Gateway,), {"name": name}))
    container.start()
    return container
