"""A loop without progress is named in /health and a metric until it reports. An idle one, or an outage, is not."""

import time

import eventlet
import httpx
import pytest
from nameko import config
from nameko.testing.services import entrypoint_hook

from contracts.ids import new_id
from contracts.orders import OrderDelivered, OrderShipped
from deploy import healthcheck
from extensions.messaging import reconnecting_connection
from extensions.messaging.event_handler import handles
from extensions.messaging.publisher import ConfirmedPublisher
from extensions.operations import operations
from extensions.rpc import container as containers
from extensions.rpc import server
from extensions.rpc.server import RpcServer, rpc
from extensions.runtime import progress
from extensions.runtime.progress import loops_of
from extensions.storage.periodic import periodic
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from qa.support.free_ports import free_ports
from tests.scrape import Scrape
from tests.support import IS_PLAIN_WIRE, Caller, eventually

OPEN = eventlet.Event()
OPEN.send()
DOORS = {}
LONG = {"seconds": 0.0}


class Subject(operations.Operations):
    """Takes the place of notifications. What it does waits at a door, if there is one."""

    name = "notifications"
    work = Work(Base)

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        pass_through("events.on_order_shipped")

    @periodic(seconds=0.2, transaction=False)
    def tick(self):
        pass_through("periodic.tick")

    @periodic(seconds=3600, transaction=False)
    def clean_up(self):
        until = time.monotonic() + LONG["seconds"]
        while time.monotonic() < until:
            with self.work.transaction():
                eventlet.sleep(0.1)

    @rpc
    def deliver(self, order_id):
        self.work.publish(OrderDelivered(order_id=order_id, user_id=order_id))

    @rpc(transaction=False)
    def work_long(self):
        pass_through("rpc.calls")


def pass_through(door):
    DOORS.get(door, OPEN).wait()


@pytest.fixture
def bound(monkeypatch):
    """Let loops be stuck after a second."""
    monkeypatch.setattr(progress, "SERVER_SECONDS", 1.0)


@pytest.fixture
def start(run_service, bound, monkeypatch):
    """A function that starts the service; it returns a function that returns its `/health/live`."""
    DOORS.clear()
    LONG["seconds"] = 0.0
    publish, receive = ConfirmedPublisher.publish, RpcServer.on_message

    def publish_after_the_door(self, messages):
        pass_through("outbox.relay")
        return publish(self, messages)

    def receive_after_the_door(self, message):
        pass_through("broker.consuming")
        receive(self, message)

    monkeypatch.setattr(ConfirmedPublisher, "publish", publish_after_the_door)
    monkeypatch.setattr(RpcServer, "on_message", receive_after_the_door)
    (port,) = free_ports(1)

    def run():
        container = run_service(Subject)
        live = lambda: httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=30)  # noqa: E731
        eventually(lambda: _is_served(live))
        container.port = port
        return container, live

    with config.patch({"METRICS_ADDRESSES": {"notifications": f"127.0.0.1:{port}"}}):
        yield run
        for door in DOORS.values():
            if not door.ready():
                door.send()


def _is_served(live):
    try:
        return live()
    except httpx.TransportError:
        return None


def health(container):
    with entrypoint_hook(container, "health") as ask:
        return ask()


def publish_an_event(container, _bus):
    with entrypoint_hook(container, "deliver") as deliver:
        deliver(str(new_id()))


def send_an_event(_container, bus):
    bus.publish(OrderShipped(order_id=new_id(), user_id=new_id()))


def call(_container, _bus):
    eventlet.spawn(Caller().notifications.work_long)


def wait(_container, _bus):
    """Do nothing: the timer runs by itself."""


BLOCKED = {
    "outbox.relay": publish_an_event,
    "events.on_order_shipped": send_an_event,
    "periodic.tick": wait,
    "rpc.calls": call,
}


@pytest.mark.parametrize(("loop", "block"), BLOCKED.items(), ids=BLOCKED)
def test_a_loop_that_blocks_is_named_until_it_reports(start, bus, monkeypatch, loop, block):
    monkeypatch.setattr(server, "CALLS_SECONDS", 1.0)
    container, live = start()
    DOORS[loop] = eventlet.Event()
    block(container, bus)
    response = eventually(lambda: (now := live()).status_code == 503 and loop in now.json()["stuck"] and now)
    assert response.json()["status"] == "failing"
    assert response.json()["stuck"][loop] >= 1
    # On a slow machine the loop may also have been slow, and not blocked yet, when it was named first.
    report = eventually(lambda: (now := health(container))["status"] == "failing" and now)
    assert loop in report["parts"]["loops"]
    scrape = Scrape(container.port)
    assert scrape("suite_loop_stuck", loop=loop) == 1
    assert scrape("suite_loop_progress_age_seconds", loop=loop) >= 1
    assert scrape("suite_loop_stuck", loop="work.recorder") in {0, None}
    with pytest.raises(healthcheck.Unhealthy, match=loop):
        healthcheck.lives(f"127.0.0.1:{container.port}", "notifications")

    DOORS[loop].send()
    eventually(lambda: not loops_of(container).is_stuck(loop))
    eventually(lambda: live().json() == {"service": "notifications", "status": "ok", "stuck": {}})
    eventually(lambda: health(container)["parts"]["loops"] == "ok")
    assert Scrape(container.port)("suite_loop_stuck", loop=loop) == 0


def test_a_reader_that_hangs_is_named_although_heartbeats_were_sent(start, monkeypatch):
    monkeypatch.setattr(reconnecting_connection, "HEARTBEAT_SECONDS", 1)
    _container, live = start()
    DOORS["broker.consuming"] = eventlet.Event()
    call(None, None)
    eventually(lambda: "broker.consuming" in live().json()["stuck"])
    DOORS["broker.consuming"].send()
    eventually(lambda: live().status_code == 200)


@pytest.mark.skipif(IS_PLAIN_WIRE, reason="Nameko's container waits for a worker without a limit")
def test_a_call_that_gets_no_worker_in_time_is_refused(start, monkeypatch):
    monkeypatch.setattr(containers, "WORKER_SECONDS", 0.2)
    container, _live = start()
    pool, occupied = container._worker_pool, []
    DOORS["pool"] = eventlet.Event()

    def fill():
        occupied.extend(pool.spawn(DOORS["pool"].wait) for _ in range(pool.free()))
        return len(occupied) >= pool.size

    eventually(fill)
    with pytest.raises(Exception, match="All workers of notifications are busy"):
        Caller().notifications.work_long()
    DOORS["pool"].send()
    for one in occupied:
        one.wait()
    Caller().notifications.work_long()


def assert_none_stays_stuck(loops):
    """For longer than the bound. On a busy machine a loop may report late, but one that is stuck never reports."""
    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        eventually(lambda: loops.stuck() == {})
        eventlet.sleep(0.1)


def test_in_an_idle_service_no_loop_is_ever_stuck(start, monkeypatch):
    """Neither is a timer that takes longer than the bound for several transactions."""
    monkeypatch.setattr(progress, "SERVER_SECONDS", 2.0)
    LONG["seconds"] = 3.0
    container, live = start()
    loops = loops_of(container)
    assert {
        "outbox.relay",
        "events.on_order_shipped",
        "periodic.tick",
        "rpc.accept",
        "broker.consuming",
    } <= loops.names()
    assert_none_stays_stuck(loops)
    (idle,) = [loop for loop in loops._loops if loop.name == "events.on_order_shipped"]
    assert time.monotonic() - idle._reported > idle.bound == 2.0
    eventually(lambda: live().status_code == 200)
    assert healthcheck.lives(f"127.0.0.1:{container.port}", "notifications")


def test_without_the_broker_a_service_is_degraded_and_lives(start, broker_outage, monkeypatch):
    monkeypatch.setattr(progress, "SERVER_SECONDS", 2.0)
    container, live = start()
    with broker_outage():
        publish_an_event(container, None)
        eventually(lambda: health(container)["parts"]["publishing"] != "ok")
        assert_none_stays_stuck(loops_of(container))
        assert health(container)["status"] == "degraded"
        eventually(lambda: live().status_code == 200)
        assert healthcheck.lives(f"127.0.0.1:{container.port}", "notifications")
