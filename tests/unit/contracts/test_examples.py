"""The examples of the API agree with the code."""

import inspect
from decimal import Decimal

import amqp
import pytest

from contracts import notifications, operations, orders, payments
from contracts.events import EVENTS
from contracts.examples import AYSE, EXAMPLES, ORDER, PAYMENT
from contracts.services import SERVICES
from extensions.http.openapi import document
from extensions.http.openapi.document import routes_of
from extensions.messaging import topology
from extensions.messaging.inbound import Undecodable, require_event
from gateway.service import GatewayService
from notifications.templates import message_for
from orders import audit
from payments.provider import reference_of

MODELS = sorted(
    {
        (model, f"{route.method} {route.path}")
        for route in routes_of(GatewayService).values()
        for model in (route.body, route.response)
        if model is not None
    },
    key=str,
)
LETTER = EXAMPLES[operations.DeadLetterView]


@pytest.mark.parametrize(("model", "route"), MODELS, ids=lambda each: getattr(each, "__name__", each))
def test_every_request_and_response_body_has_an_example(model, route):
    assert model in EXAMPLES, (
        f"{model.__module__}.{model.__name__} ({route}) has no example: add it to EXAMPLES in contracts/examples.py"
    )


def test_the_document_leaves_out_an_example_that_is_missing(monkeypatch, caplog):
    monkeypatch.delitem(EXAMPLES, orders.OrderView)
    monkeypatch.delitem(EXAMPLES, orders.CreateOrder)
    paths = document.document(GatewayService, {"title": "", "version": ""})["paths"]
    created = paths["/orders"]["post"]
    assert "example" not in created["requestBody"]["content"]["application/json"]
    assert "example" not in created["responses"]["201"]["content"]["application/json"]
    assert "example" not in paths["/orders"]["get"]["responses"]["200"]["content"]["application/json"]
    assert "contracts/examples.py has no example of contracts.orders.OrderView" in caplog.messages


def test_the_dead_letter_is_one_that_its_queue_can_have():
    plan = topology.Plan()
    topology.declare(plan)
    assert LETTER["queue"] in plan.queues
    message = amqp.Message(LETTER["body"], content_type="application/json", message_id=LETTER["message_id"])
    message.delivery_info = {"routing_key": LETTER["event"]}
    with pytest.raises(Undecodable) as refused:
        require_event(message, EVENTS[LETTER["event"]], LETTER["service"])
    assert str(refused.value) == LETTER["error"]


def test_timeline_entries_are_events_of_their_service():
    for entry in EXAMPLES[orders.TimelineView]["items"]:
        event = EVENTS[entry["event"]]
        assert entry["service"] == event.producer
        event.model_validate(entry["data"])


def test_the_notification_has_the_text_of_its_template():
    shown = EXAMPLES[notifications.NotificationView]
    event = EVENTS[shown["kind"]](order_id=ORDER, user_id=AYSE, total_amount=Decimal("299.80"), currency="TRY")
    message = message_for(event)
    assert (shown["subject"], shown["body"]) == (message.subject, message.body)


def test_the_payment_has_a_reference_of_the_provider():
    reference = reference_of(PAYMENT, "TRY")
    shown = EXAMPLES[payments.PaymentView]["transaction_reference"]
    assert len(shown) == len(reference)
    assert shown.partition("_")[0] == reference.partition("_")[0]


def test_the_checks_are_those_of_the_audits():
    shown = {check["name"] for check in EXAMPLES[operations.ConsistencyView]["checks"]}
    assert [name for name in shown if f'"{name}"' not in inspect.getsource(audit)] == []


def test_the_readiness_report_names_all_services():
    assert set(EXAMPLES[operations.ReadinessView]["services"]) == set(SERVICES)
