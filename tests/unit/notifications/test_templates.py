"""The texts of notifications."""

from decimal import Decimal
from uuid import UUID

import pytest

from contracts.events import EVENTS
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderShipped
from contracts.users import UserRegistered
from notifications.templates import NOT_TOLD, REASONS, TEMPLATES, message_for

ORDER, USER = UUID(int=1), UUID(int=2)


def test_every_event_that_notifications_consumes_has_a_text():
    consumed = {event for event in EVENTS.values() if "notifications" in event.consumers}
    assert set(TEMPLATES) | set(NOT_TOLD) == consumed


@pytest.mark.parametrize(
    ("carrier", "number", "told"),
    [
        (None, None, "warehouse."),
        ("PTT", None, "warehouse. It comes with PTT."),
        (None, "RR12", "warehouse. Its tracking number is RR12."),
        ("PTT", "RR12", "warehouse. It comes with PTT, tracking number RR12."),
    ],
)
def test_the_parcel_is_described(carrier, number, told):
    event = OrderShipped(order_id=ORDER, user_id=USER, carrier=carrier, tracking_number=number)
    assert message_for(event).body.endswith(told)


def test_the_fields_of_the_event_are_filled_in():
    event = OrderConfirmed(order_id=ORDER, user_id=USER, total_amount=Decimal("149.9"), currency="TRY")
    message = message_for(event)
    assert f"{ORDER} of 149.90 TRY" in message.body
    assert "{" not in message.subject + message.body


def test_braces_in_user_input_are_literal_text():
    assert "{user_id}@x.tr" in message_for(UserRegistered(user_id=USER, email="{user_id}@x.tr")).body


@pytest.mark.parametrize("reason", CancelReason)
def test_a_cancellation_states_its_reason(reason):
    body = message_for(OrderCancelled(order_id=ORDER, user_id=USER, reason=reason)).body
    assert REASONS[reason].format(order_id=ORDER) in body
    assert "{" not in body


def test_an_out_of_stock_notification_refers_to_the_details():
    cancelled = OrderCancelled(order_id=ORDER, user_id=USER, reason=CancelReason.OUT_OF_STOCK)
    assert f"/orders/{ORDER}/timeline" in message_for(cancelled).body
