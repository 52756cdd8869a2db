"""What the console states about the suite is what the contracts state."""

import re
from typing import get_args

import pytest

from contracts.events import EVENTS
from contracts.inventory import StockReleased
from contracts.notifications import KINDS
from contracts.orders import CancelReason, OrderStatus, OrderView
from contracts.webhooks import DisabledReason, EventName
from gateway.console import FOLDER
from orders.saga import PROGRESS, REPLIES


def source(name):
    return (FOLDER / name).read_text()


def block(text, name):
    """The object or array literal that begins at the constant `name`."""
    found = re.search(rf"{name} = (?:/\*\*.*?\*/ \()?([{{\[].*?[}}\]])\)?;", text, re.DOTALL)
    assert found, name
    return found[1]


def test_the_map_knows_every_event_and_its_consumers():
    told = dict(re.findall(r'"([a-z_.]+)": \[([^\]]*)\]', block(source("lib/saga.js"), "CONSUMERS")))
    known = {event.event_type: {*event.consumers, *getattr(event, "listeners", ())} for event in EVENTS.values()}
    assert {name: set(re.findall(r'"(\w+)"', services)) for name, services in told.items()} == known


def test_events_change_an_order_as_in_the_orders_service():
    effects = block(source("lib/saga.js"), "EFFECTS")
    for event, (part, status) in REPLIES.items():
        assert f'"{event.event_type}": {{ {part}_status: "{status}" }}' in effects
    ranks = dict(re.findall(r"([A-Z_]+): (\d)", block(source("lib/saga.js"), "PROGRESS")))
    assert {name: int(rank) for name, rank in ranks.items() if name in PROGRESS} == PROGRESS
    assert {str(status) for status in OrderStatus} <= ranks.keys()
    assert "returned" in StockReleased.model_fields


def test_every_status_and_reason_has_a_text():
    words = set(re.findall(r"^    ([A-Z_]+): \"", source("ui/badge.js"), re.MULTILINE))
    stated = {*OrderStatus, *CancelReason}
    for name in ("stock_status", "payment_status"):
        stated |= set(get_args(OrderView.model_fields[name].annotation))
    assert {str(one) for one in stated} <= words


@pytest.mark.parametrize(("file", "stated"), [("views/preferences.js", KINDS), ("views/webhooks.js", DisabledReason)])
def test_what_the_settings_list_has_a_text_in_both_languages(file, stated):
    text = source(file)
    for name in stated:
        assert len(re.findall(rf'^    "?{re.escape(str(name))}"?: "', text, re.MULTILINE)) == 2, name


def test_an_endpoint_can_subscribe_to_what_the_contract_allows():
    told = re.findall(r'"([^"]+)"', block(source("views/webhooks.js"), "EVENTS"))
    assert tuple(told) == get_args(EventName)
