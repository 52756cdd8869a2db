"""The registry of all events by routing key, and the names of the queues and handlers that receive them."""

import re
from typing import Any

from contracts import catalog, inventory, orders, payments, users
from contracts.base import Event

EXCHANGE = "events"

EVENTS: dict[str, type[Event]] = {
    event.event_type: event
    for event in (
        orders.OrderCreated,
        orders.OrderConfirmed,
        orders.OrderCancelled,
        orders.OrderShipped,
        orders.OrderDelivered,
        inventory.StockReserved,
        inventory.StockFailed,
        inventory.StockCommitted,
        inventory.StockReleased,
        inventory.StockLow,
        payments.PaymentAuthorized,
        payments.PaymentFailed,
        payments.PaymentCaptured,
        payments.PaymentVoided,
        payments.PaymentPartiallyRefunded,
        payments.PaymentRefunded,
        catalog.ProductCreated,
        catalog.ProductUpdated,
        users.UserRegistered,
        users.UserUpdated,
        users.UserPasswordResetRequested,
        users.UserEmailVerificationRequested,
        users.UserDeleted,
    )
}


def handler_name(event: type[Event]) -> str:
    """Return the last part of the event's queue names: `on_order_created` for OrderCreated.

    A handler of this event alone must have this name, too.
    """
    return "on_" + re.sub(r"(?<!^)(?=[A-Z])", "_", event.__name__).lower()


def queue_name(service: str, event: type[Event]) -> str:
    """Return the queue in which `service` gets `event`: `inventory.on_order_created`."""
    return f"{service}.{handler_name(event)}"


def is_logged(event: type[Event]) -> bool:
    """Tell whether an event enters the event log, which administrators read. One with a secret does not."""
    return event.secret_for is None and "token" not in event.model_fields


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of every event's body, by routing key."""
    return {name: event.model_json_schema(mode="serialization") for name, event in EVENTS.items()}
