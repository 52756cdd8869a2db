"""The text of the notification about each event. Fields in braces are fields of the event."""

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.base import Event
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderDelivered, OrderShipped
from contracts.users import UserRegistered


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
        "Your order {order_id} has left our warehouse.",
    ),
    OrderDelivered: Message(
        "Your order has arrived",
        "Your order {order_id} was delivered. Enjoy it.",
    ),
}

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
    return Message(template.subject.format(**fields), template.body.format(**fields))
