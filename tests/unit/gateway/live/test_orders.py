import json
from types import SimpleNamespace
from uuid import UUID

import pytest

from contracts.errors import ValidationFailed
from contracts.events import EVENTS
from contracts.orders import STATUS_EVENTS, OrderStatus
from gateway.live import orders

ORDER = UUID("0190a6b2-0000-7000-8000-000000000001")


def entry(name, **data):
    event_id = "0190a6b2-0000-7000-8000-000000000002"
    return {"event": name, "event_id": event_id, "service": "orders", "at": "2026-11-22T09:30:00.000000Z", "data": data}


def test_an_event_has_the_form_of_the_timeline_and_its_position():
    item = orders.item_of(ORDER, 3, entry("payment.captured", amount="9.90"))
    expected = f"id: 3\ndata: {json.dumps(entry('payment.captured', amount='9.90'), separators=(',', ':'))}\n\n"
    assert item.data.decode().replace(", ", ",").replace('": ', '":') == expected
    assert item[:2] == (3, "0190a6b2-0000-7000-8000-000000000002")


def test_a_change_of_the_status_comes_before_the_event_with_the_position():
    told = orders.item_of(ORDER, 2, entry("order.cancelled", reason="TIMEOUT")).data.decode()
    status, event, end = told.split("\n\n")
    assert (status.split("\n")[0], event.split("\n")[0], end) == ("event: status", "id: 2", "")
    assert json.loads(status.partition("data: ")[2]) == {
        "order_id": str(ORDER),
        "status": "CANCELLED",
        "cancel_reason": "TIMEOUT",
        "at": "2026-11-22T09:30:00.000000Z",
    }


def test_every_status_has_its_event():
    assert set(STATUS_EVENTS.values()) == set(OrderStatus)
    assert set(STATUS_EVENTS) <= set(EVENTS)


@pytest.mark.parametrize(("header", "position"), [(None, 0), ("", 0), ("0", 0), ("17", 17)])
def test_a_position(header, position):
    assert orders.position_of(header) == position


@pytest.mark.parametrize("header", ["-1", "x", "1.0", "\u0661", "9" * 30, "1024-0"])
def test_what_is_no_position_is_refused(header):
    with pytest.raises(ValidationFailed, match="Last-Event-ID"):
        orders.position_of(header)


def test_the_timelines_of_many_orders_are_one_call():
    asked = []

    def get_timelines(wanted):
        asked.append(wanted)
        entries = [entry("order.created") | {"order_id": str(ORDER), "position": 4}]
        return {"items": entries, "is_complete": True}

    services = SimpleNamespace(orders=SimpleNamespace(get_timelines=get_timelines))
    found = orders.fetch(services, {ORDER: 3})
    assert [(one.order_id, one.known) for one in asked[0].orders] == [(ORDER, 3)]
    assert [item.position for item in found.items[ORDER]] == [4]
