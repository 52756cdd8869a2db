"""Server-sent events of the gateway, with all services and the real broker behind it."""

import amqp
import eventlet
import pytest

from contracts.ids import new_id
from extensions.http.message.strict_json import dump
from extensions.messaging import event_log_reader
from extensions.messaging.event_log_reader import OFFSET, EventLogReader, Position
from extensions.messaging.topology import EVENT_LOG, LOGGED_EVENTS
from gateway.service import GatewayService
from tests.broker_control import silent_event_log
from tests.event_source import EventSource
from tests.service.gateway.responses import bearer, ok
from tests.support import TEST_TIMEOUT_SECONDS, connect, eventually

CONFIRMED = ["order.created", "order.confirmed"]


@pytest.fixture
def customer(session):
    return bearer(session)


@pytest.fixture
def place(api, product, customer):
    """A function that places an order of one unit."""

    def order():
        return ok(
            api.post("/orders", json={"items": [{"product_id": product["id"], "quantity": 1}]}, headers=customer), 201
        )

    return order


@pytest.fixture
def listen(api):
    """A function that opens a stream: `listen("/admin/events", headers)`."""
    sources = []

    def connect(path, headers, last_event_id=None):
        source = EventSource(f"{api.base_url}{path}", headers, last_event_id)
        sources.append(source)
        return source.__enter__()

    yield connect
    for source in sources:
        source.close()


def names(source):
    return [entry["event"] for entry in source.data]


def test_an_order_is_followed_from_its_beginning(api, listen, place, customer):
    order = place()
    source = listen(f"/orders/{order['id']}/events", customer)
    source.wait_for(lambda s: "payment.captured" in names(s) and "inventory.stock_committed" in names(s))
    timeline = ok(api.get(f"/orders/{order['id']}/timeline", headers=customer))["items"]
    assert source.data == timeline
    assert source.ids == [str(number) for number in range(1, len(timeline) + 1)]
    statuses = [data["status"] for name, _, data in source.events if name == "status"]
    assert statuses == ["CREATED", "CONFIRMED"]
    headers = source.response.headers
    assert headers["content-type"] == "text/event-stream"
    assert headers["x-accel-buffering"] == "no"
    assert "no-store" in headers["cache-control"]


def test_a_stream_continues_after_the_last_event(api, listen, place, customer):
    order = place()
    first = listen(f"/orders/{order['id']}/events", customer)
    first.wait_for(lambda s: "payment.captured" in names(s) and "inventory.stock_committed" in names(s))
    seen = first.ids
    second = listen(f"/orders/{order['id']}/events", customer, last_event_id=seen[1])
    second.wait_for(lambda s: len(s.ids) == len(seen) - 2)
    assert second.ids == seen[2:]


def test_an_administrator_sees_the_events_of_all_services(listen, place, admin):
    source = listen("/admin/events", admin)
    source.wait_for(lambda s: s.last_event_id)
    order = place()
    source.wait_for(lambda s: {"payment.captured", "inventory.stock_committed"} <= set(names(s)))
    created = next(entry for entry in source.data if entry["event"] == "order.created")
    assert created["order_id"] == order["id"]
    assert created["service"] == "orders"
    confirmed = next(entry for entry in source.data if entry["event"] == "order.confirmed")
    assert confirmed["causation_id"] in {entry["event_id"] for entry in source.data}
    assert len(set(source.ids)) == len(source.ids)
    again = listen("/admin/events", admin, last_event_id=source.ids[0])
    again.wait_for(lambda s: len(s.ids) >= len(source.ids) - 1)
    assert again.ids == source.ids[1:]


@pytest.fixture
def reader(shared_services):
    """The gateway's reader of the event log."""
    (gateway,) = [one for one in shared_services.containers.values() if one.service_cls is GatewayService]
    return gateway.shared_extensions[EventLogReader]


def test_an_old_position_is_read_from_the_broker(listen, place, admin, reader):
    source = listen("/admin/events", admin)
    source.wait_for(lambda s: s.last_event_id)
    place()
    source.wait_for(lambda s: {"payment.captured", "inventory.stock_committed"} <= set(names(s)))
    reader._recent.clear()
    again = listen("/admin/events", admin, last_event_id=source.ids[1])
    again.wait_for(lambda s: len(s.ids) >= len(source.ids) - 2)
    place()
    again.wait_for(lambda s: names(s).count("payment.captured") == 2)
    source.wait_for(lambda s: len(s.ids) == len(again.ids) + 2)
    assert again.ids == source.ids[2:]
    assert "gap" not in again.names


def test_while_the_log_is_silent_no_event_is_delayed_and_afterwards_none_is_missing(
    servers, listen, place, api, admin, customer
):
    source = listen("/admin/events", admin)
    source.wait_for(lambda s: s.last_event_id)
    with silent_event_log(servers.rabbitmq):
        order = place()
        path = f"/orders/{order['id']}/timeline"
        expected = {"payment.captured", "inventory.stock_committed"}
        eventually(lambda: expected <= {one["event"] for one in ok(api.get(path, headers=customer))["items"]})
        timeline = {one["event_id"] for one in ok(api.get(path, headers=customer))["items"]}
    source.wait_for(lambda s: {entry["event_id"] for entry in s.data} >= timeline)
    assert "gap" not in source.names


def first_of_last_chunk(connection):
    """The offset at which the broker begins if it is asked for the last message."""
    found, channel = [], connection.channel()
    channel.basic_qos(0, 1, False)
    channel.basic_consume(EVENT_LOG, callback=found.append, arguments={OFFSET: "last"})
    eventually(lambda: connection.drain_events(timeout=TEST_TIMEOUT_SECONDS) or found)
    channel.close()
    return found[0].headers[OFFSET]


def test_a_client_that_knows_more_than_the_reader_gets_neither_a_gap_nor_anything_twice(
    listen, admin, reader, monkeypatch
):
    """A burst is a chunk of the log, of which a new reader gets one message after the other. It has got the first."""
    source = listen("/admin/events", admin)
    source.wait_for(lambda s: s.last_event_id)
    with connect() as connection:

        def publish_burst(number):
            channel = connection.channel()
            for _ in range(200):
                entry = {"event": "order.test", "event_id": str(new_id()), "service": "orders", "order_id": None}
                channel.basic_publish(amqp.Message(dump(entry | {"data": {"of": number}})), LOGGED_EVENTS, "orders")
            source.wait_for(lambda s: sum(one["data"].get("of") == number for one in s.data) == 200)
            return first_of_last_chunk(connection)

        bursts = ((publish_burst(number), Position.parse(source.ids[-1]).offset) for number in range(20))
        begin = next(first for first, last in bursts if last - first >= 5)
    source.close()
    eventually(lambda: reader._users == 0)
    reader._close()
    asked, receive, exists = eventlet.Event(), EventLogReader._receive, EventLogReader.exists

    def receive_late(self, channel, message):
        if self.last is not None and not asked.ready():
            asked.wait()
        receive(self, channel, message)

    def ask(self, position):
        found = exists(self, position)
        asked.send()
        return found

    monkeypatch.setattr(EventLogReader, "_receive", receive_late)
    monkeypatch.setattr(EventLogReader, "exists", ask)
    known = next(index for index, one in enumerate(source.ids) if Position.parse(one).offset == begin + 2)
    again = listen("/admin/events", admin, last_event_id=source.ids[known])
    again.wait_for(lambda s: s.ids and s.ids[-1] == source.ids[-1])
    assert again.ids == source.ids[known + 1 :]
    assert set(again.names) == {"message"}


def test_a_position_of_a_log_that_was_deleted_is_a_gap(listen, place, admin, monkeypatch):
    monkeypatch.setattr(event_log_reader, "FOUND_SECONDS", 0.5)
    source = listen("/admin/events", admin, last_event_id="999999999-0")
    source.wait_for(lambda s: "gap" in s.names)
    place()
    source.wait_for(lambda s: "order.created" in names(s))


def test_invalid_positions_are_refused(api, admin, place, customer):
    order = place()
    paths = {"/admin/events": admin, f"/orders/{order['id']}/events": customer, "/notifications/stream": customer}
    for path, headers in paths.items():
        response = api.get(path, headers={**headers, "Last-Event-ID": "x"})
        assert response.status_code == 400
        assert response.json()["errors"][0]["field"] == "Last-Event-ID"


def test_only_the_owner_and_administrators_may_listen(api, place, customer, admin, listen, login):
    order = place()
    path = f"/orders/{order['id']}/events"
    assert api.get("/admin/events", headers=customer).status_code == 403
    assert api.get(path).status_code == 401
    assert api.get(path, headers=login("customer")).status_code == 404
    assert listen(path, admin).response.status_code == 200
    assert api.get(path, headers={**customer, "Accept": "application/json"}).status_code == 406


def test_many_streams_of_one_order_get_the_same(listen, place, customer, api, admin):
    order = place()
    sources = [listen(f"/orders/{order['id']}/events", customer) for _ in range(5)]
    for source in sources:
        source.wait_for(lambda s: "payment.captured" in names(s) and "inventory.stock_committed" in names(s))
    ok(api.post(f"/orders/{order['id']}/ship", headers=admin))
    for source in sources:
        source.wait_for(lambda s: names(s)[-1] == "order.shipped")
    assert len({tuple(source.ids) for source in sources}) == 1


def test_a_user_follows_the_own_notifications(api, listen, place, customer, admin):
    source, of_admin = listen("/notifications/stream", customer), listen("/notifications/stream", admin)
    source.wait_for(lambda s: s.last_event_id)
    order = place()
    source.wait_for(lambda s: {"order.created", "order.confirmed"} <= {one["kind"] for one in s.data})
    # The one about the registration may be among them: it was sent just before.
    listed = ok(api.get("/notifications", headers=customer))["items"]
    by_id = {one["id"]: one for one in listed if one["order_id"] == order["id"]}
    assert {one["id"]: one for one in source.data if one["order_id"]} == by_id
    again = listen("/notifications/stream", customer, last_event_id=source.ids[0])
    again.wait_for(lambda s: s.ids)
    again.wait_for(lambda s: len(s.ids) == len(source.ids) - 1)
    assert again.ids == source.ids[1:]
    assert not [one for one in of_admin.data if one["order_id"]]
    ok(api.post(f"/orders/{order['id']}/ship", headers=admin))
    for one in (source, again):
        one.wait_for(lambda s: "order.shipped" in {each["kind"] for each in s.data})
