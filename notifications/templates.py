"""The text of the notification about each event. Fields in braces are fields of the event."""

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.base import Event
from contracts.inventory import StockLow
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderDelivered, OrderShipped
from contracts.payments import PaymentPartiallyRefunded, PaymentRefunded
from contracts.users import (
    UserDeleted,
    UserEmailVerificationRequested,
    UserPasswordResetRequested,
    UserRegistered,
    UserUpdated,
)


@dataclass(frozen=True, slots=True)
class Message:
    """A subject and a body."""

    subject: str
    body: str


TEMPLATES: Mapping[type[Event], Message] = {
    UserRegistered: Message(
        "Welcome",
        "Your account {email} is ready. We are glad that you are here.",
    ),
    OrderCreated: Message(
        "We have received your order",
        "Thank you. We are checking stock and payment for your order {order_id} of {total_amount} {currency}.",
    ),
    OrderConfirmed: Message(
        "Your order is confirmed",
        "Your order {order_id} of {total_amount} {currency} is paid, and we are packing it.",
    ),
    OrderCancelled: Message(
        "Your order is cancelled",
        "Your order {order_id} is cancelled: {reason_in_words}. You pay nothing for it.",
    ),
    OrderShipped: Message(
        "Your order is on its way",
        "Your order {order_id} has left our warehouse.{tracking}",
    ),
    OrderDelivered: Message(
        "Your order has arrived",
        "Your order {order_id} was delivered. Enjoy it.",
    ),
    PaymentRefunded: Message(
        "You get your money back",
        "We have refunded your order {order_id}. Your bank needs a few days to show it.",
    ),
    PaymentPartiallyRefunded: Message(
        "You get a part of your money back",
        "We have refunded {amount} {currency} of your order {order_id}. Your bank needs a few days to show it.",
    ),
    StockLow: Message(
        "{product_sku} is running out",
        "Only {available} of {product_sku} are available; the threshold is {threshold}.",
    ),
}

NOT_TOLD = (UserUpdated, UserDeleted, UserPasswordResetRequested, UserEmailVerificationRequested)
"""Events that notifications consumes, and that have no text in the list of the user."""

REASONS: Mapping[CancelReason, str] = {
    CancelReason.OUT_OF_STOCK: "we do not have enough of it in stock, and /orders/{order_id}/timeline says of what",
    CancelReason.PAYMENT_FAILED: "the payment was declined",
    CancelReason.TIMEOUT: "we could not process it in time",
    CancelReason.USER: "you asked for it",
    CancelReason.ADMIN: "our shop had to cancel it",
}


def message_for(event: Event) -> Message:
    """Return the message about `event`, with its fields filled in."""
    template = TEMPLATES[type(event)]
    fields = event.model_dump(mode="json")
    if isinstance(event, OrderCancelled):
        fields["reason_in_words"] = REASONS[event.reason].format(**fields)
    if isinstance(event, OrderShipped):
        fields["tracking"] = _tracking(event)
    return Message(template.subject.format(**fields), template.body.format(**fields))


def _tracking(event: OrderShipped) -> str:
    """Return a sentence about the parcel, "" if nothing is known."""
    number = f", tracking number {event.tracking_number}" if event.tracking_number else ""
    if event.carrier:
        return f" It comes with {event.carrier}{number}."
    return f" Its tracking number is {event.tracking_number}." if number else ""
