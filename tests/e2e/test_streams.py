"""Streams of the real gateway over its death: a client that comes back with its last id misses nothing."""

import signal
from contextlib import suppress

import eventlet
import httpx
import pytest

from contracts.events import EVENTS
from tests.event_source import EventSource
from tests.stopwatch import Stopwatch
from tests.support import eventually

SETTLED = {"inventory.stock_committed", "payment.captured"}


class Follower:
    """A client that connects again, with its last id, whenever its stream ends."""

    def __init__(self, url, token):
        self.connections, self.events, self.source = 0, [], None
        self._url, self._headers = url, {"Authorization": f"Bearer {token}"}
        self._greenlet = eventlet.spawn(self._follow)

    @property
    def ids(self):
        return [event_id for name, event_id, _ in self.events if name == "message"]

    @property
    def data(self):
        return [data for name, _, data in self.events if name == "message"]

    def names(self):
        return {entry["event"] for entry in self.data}

    def stop(self):
        self._greenlet.kill()

    def _follow(self):
        last = None
        while True:
            source = self.source = EventSource(self._url, self._headers, last)
            seen = 0
            try:
                while not source.is_closed or seen < len(source.events):
                    self.events += source.events[seen:]
                    seen = len(source.events)
                    if source.response is not None and source.response.status_code == 200 and not source.is_counted:
                        self.connections, source.is_counted = self.connections + 1, True
                    eventlet.sleep(0.01)
                last = source.last_event_id
            finally:
                source.close()
            eventlet.sleep(0.1)


@pytest.fixture
def follow(shop):
    followers = []

    def start(path, client):
        followers.append(Follower(f"{shop.url}{path}", client.token))
        eventually(lambda: followers[-1].connections)
        return followers[-1]

    yield start
    for follower in followers:
        follower.stop()


def has_all(follower, wanted):
    missing = wanted.keys() - {entry["event_id"] for entry in follower.data}
    assert not missing, [wanted[event_id] for event_id in missing]
    return True


def test_nothing_is_lost_over_a_kill_of_the_gateway_and_nothing_comes_twice(shop, follow):
    tea = shop.product()
    everything = follow("/admin/events", shop.admin)
    eventually(lambda: everything.source.last_event_id)  # the stream has begun: the first id is the present position
    before = shop.order((tea, 1))
    first = follow(f"/orders/{before['id']}/events", shop.customer)
    eventually(lambda: first.names() >= SETTLED)
    eventually(lambda: before["id"] in {entry["order_id"] for entry in everything.data})

    shop.suite.kill("gateway", signal.SIGKILL)
    during = [shop.order((tea, 1)) for _ in range(3)]  # as soon as there is a gateway again
    shop.admin.must("POST", f"/orders/{before['id']}/ship")
    eventually(lambda: "order.shipped" in first.names())
    orders = {order["id"] for order in (before, *during)}

    def published():
        return [entry for order in sorted(orders) for entry in shop.get(f"/orders/{order}/timeline")["items"]]

    eventually(lambda: sum(entry["event"] in SETTLED for entry in published()) == 2 * len(orders))
    wanted = {entry["event_id"]: entry for entry in published()}
    eventually(lambda: has_all(everything, wanted))

    assert first.connections == everything.connections == 2
    timeline = shop.get(f"/orders/{before['id']}/timeline")["items"]
    assert first.data == timeline
    assert first.ids == [str(number) for number in range(1, len(timeline) + 1)]
    statuses = [data["status"] for name, _, data in first.events if name == "status"]
    assert statuses == ["CREATED", "CONFIRMED", "SHIPPED"]
    assert len(set(everything.ids)) == len(everything.ids)
    assert {entry["event"] for entry in everything.data} <= set(EVENTS)


def test_a_restart_does_not_wait_for_streams(shop):
    headers = {"Authorization": f"Bearer {shop.admin.token}"}
    sources = [EventSource(f"{shop.url}/admin/events", headers) for _ in range(20)]
    for source in sources:
        with suppress(httpx.HTTPError):
            source.wait_for(lambda s: s.comments)
    began = Stopwatch()
    shop.suite.stop_service("gateway", grace=60)
    stopped = began.seconds
    for source in sources:
        source.wait_for(lambda s: s.is_closed)
        assert source.events[-1][::2] == ("end", {"reason": "shutdown"})
        source.close()
    shop.start("gateway")
    assert stopped < 5
