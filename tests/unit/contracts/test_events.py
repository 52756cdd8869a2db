"""Every event: its names, its producer and consumers, and its JSON."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from contracts.base import Event
from contracts.events import EVENTS, handler_name, queue_name, schemas
from contracts.ids import new_id
from contracts.inventory import Shortage
from contracts.orders import CancelReason, OrderCreated, OrderLine
from contracts.users import Language, Role

ROOT = Path(__file__).parent.parent.parent.parent
SERVICES = {path.parent.name for path in ROOT.glob("*/service.py")}
NOW = datetime(2026, 1, 31, 8, 30, 0, 7, tzinfo=UTC)

SAMPLES = {
    "id": new_id(),
    "order_id": new_id(),
    "user_id": new_id(),
    "payment_id": new_id(),
    "product_id": new_id(),
    "product_sku": "PEN",
    "available": 4,
    "threshold": 5,
    "remaining": Decimal("75.00"),
    "carrier": "Posta",
    "tracking_number": "TR-1",
    "total_amount": Decimal("25.00"),
    "amount": Decimal("25.00"),
    "price": Decimal("12.5"),
    "currency": "TRY",
    "items": (OrderLine(product_id=new_id(), product_sku="PEN", quantity=2, price_snapshot=Decimal("12.5")),),
    "shortages": (Shortage(product_id=new_id(), requested=2, available=1),),
    "returned": True,
    "payment_method": "pm_ok",
    "reason": CancelReason.USER,
    "transaction_reference": "r-1",
    "sku": "PEN",
    "name": "Kurşun kalem ✏",
    "description": "",
    "is_active": False,
    "version": 3,
    "created_at": NOW,
    "updated_at": NOW,
    "at": NOW,
    "ended_sessions": (new_id(),),
    "email": "name@example.com",
    "roles": (Role.CUSTOMER, Role.ADMIN),
    "language": Language.TURKISH,
    "token": "any-token",
    "expires_at": NOW,
}


def sample(kind):
    return kind(**{name: SAMPLES[name] for name in kind.model_fields})


by_kind = pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS.keys())


@by_kind
def test_names(kind):
    noun, _, verb = kind.event_type.partition(".")
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", kind.event_type)
    assert kind.__name__.lower().endswith(verb.replace("_", ""))
    assert handler_name(kind) == f"on_{verb if noun == 'inventory' else f'{noun}_{verb}'}"
    assert queue_name("orders", kind) == f"orders.{handler_name(kind)}"


@by_kind
def test_producer_and_consumers_are_services(kind):
    assert kind.producer in SERVICES
    unknown = set(kind.consumers) - SERVICES
    assert not unknown, f"create {', '.join(f'{one}/service.py' for one in unknown)}, or remove it from `consumers`"
    assert kind.producer not in kind.consumers
    assert len(set(kind.consumers)) == len(kind.consumers)


@by_kind
def test_an_event_survives_a_round_trip(kind):
    event = sample(kind)
    assert kind.model_validate_json(event.to_json()) == event


@by_kind
def test_no_number_in_it_is_a_float(kind):
    json.loads(sample(kind).to_json(), parse_float=pytest.fail)


@by_kind
def test_a_newer_producer_may_add_a_field_but_none_may_be_missing(kind):
    body = json.loads(sample(kind).to_json())
    assert kind.model_validate_json(json.dumps(body | {"added_later": [1]})) == sample(kind)
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    for name in required:
        with pytest.raises(ValidationError):
            kind.model_validate_json(json.dumps({key: value for key, value in body.items() if key != name}))


@by_kind
def test_it_is_correlated_with_its_order_or_with_what_it_is_about(kind):
    event = sample(kind)
    about = next(name for name in ("order_id", "user_id", "product_id", "id") if name in kind.model_fields)
    assert event.correlation_id == str(SAMPLES[about])


@by_kind
def test_it_has_a_schema(kind):
    assert set(schemas()[kind.event_type]["properties"]) == set(kind.model_fields)


def test_every_event_class_is_in_the_list():
    def kinds_of(parent):
        for kind in parent.__subclasses__():
            if kind.__module__.startswith("contracts."):
                yield kind
                yield from kinds_of(kind)

    assert {kind for kind in kinds_of(Event) if not kind.__name__.startswith("_")} == set(EVENTS.values())
    assert EVENTS["order.created"] is OrderCreated
    assert len({handler_name(kind) for kind in EVENTS.values()}) == len(EVENTS)


def test_an_event_is_a_fact_and_does_not_change():
    event = sample(OrderCreated)
    with pytest.raises(ValidationError):
        event.currency = "EUR"
