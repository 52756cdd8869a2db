"""How an order succeeds or fails. The state machine as data and pure functions; no other code decides.

    CREATED --stock reserved and payment authorised--> CONFIRMED --ship--> SHIPPED --deliver--> DELIVERED
       |                                                   |
       +--stock failed, payment failed, deadline, cancel-->+--cancel--> CANCELLED

The orders service publishes an event for each new status, and the inventory and payments services react to it. On
`order.confirmed` they commit the stock and capture the payment. On `order.cancelled` they release the stock, and void
or refund the payment. Their events are the saga's replies. Replies may arrive late, twice or in any sequence, so the
stock status and the payment status only move forward.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from contracts.base import Event
from contracts.inventory import StockCommitted, StockFailed, StockReleased, StockReserved
from contracts.orders import CancelReason, OrderStatus
from contracts.payments import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentFailed,
    PaymentPartiallyRefunded,
    PaymentRefunded,
    PaymentVoided,
)

CREATED, CONFIRMED, SHIPPED, DELIVERED, CANCELLED = OrderStatus


class Command(StrEnum):
    """What a user, an administrator or the deadline timer asks for."""

    CANCEL_BY_USER = "cancel by the user"
    CANCEL_BY_ADMIN = "cancel by an admin"
    EXPIRE = "deadline"
    SHIP = "ship"
    DELIVER = "deliver"


@dataclass(frozen=True, slots=True)
class Saga:
    """The state of one order."""

    status: OrderStatus = CREATED
    stock: str = "PENDING"
    payment: str = "PENDING"
    cancel_reason: CancelReason | None = None


# Every transition of an order's status. Others are a defect.
TRANSITIONS: dict[OrderStatus, frozenset[OrderStatus]] = {
    CREATED: frozenset({CONFIRMED, CANCELLED}),
    CONFIRMED: frozenset({SHIPPED, CANCELLED}),
    SHIPPED: frozenset({DELIVERED}),
    DELIVERED: frozenset(),
    CANCELLED: frozenset(),
}

# For each command: the statuses in which it is allowed, the new status, and the reason of a cancellation.
COMMANDS: dict[Command, tuple[frozenset[OrderStatus], OrderStatus, CancelReason | None]] = {
    Command.CANCEL_BY_USER: (frozenset({CREATED, CONFIRMED}), CANCELLED, CancelReason.USER),
    Command.CANCEL_BY_ADMIN: (frozenset({CREATED, CONFIRMED}), CANCELLED, CancelReason.ADMIN),
    Command.EXPIRE: (frozenset({CREATED}), CANCELLED, CancelReason.TIMEOUT),
    Command.SHIP: (frozenset({CONFIRMED}), SHIPPED, None),
    Command.DELIVER: (frozenset({SHIPPED}), DELIVERED, None),
}

# For each reply: whether it sets the stock status or the payment status, and to what.
REPLIES: dict[type[Event], tuple[str, str]] = {
    StockReserved: ("stock", "RESERVED"),
    StockFailed: ("stock", "FAILED"),
    StockCommitted: ("stock", "COMMITTED"),
    StockReleased: ("stock", "RELEASED"),
    PaymentAuthorized: ("payment", "AUTHORIZED"),
    PaymentFailed: ("payment", "FAILED"),
    PaymentCaptured: ("payment", "CAPTURED"),
    PaymentVoided: ("payment", "VOIDED"),
    PaymentPartiallyRefunded: ("payment", "PARTIALLY_REFUNDED"),
    PaymentRefunded: ("payment", "REFUNDED"),
}

# The order of the stock and payment statuses: a late reply never sets an earlier one.
PROGRESS = {
    "PENDING": 0,
    "RESERVED": 1,
    "AUTHORIZED": 1,
    "COMMITTED": 2,
    "CAPTURED": 2,
    "PARTIALLY_REFUNDED": 3,
    "FAILED": 4,
    "RELEASED": 4,
    "RETURNED": 4,
    "VOIDED": 4,
    "REFUNDED": 4,
}

# An order is decided when its saga has confirmed or cancelled it.
UNDECIDED = CREATED

# An order is settled when inventory and payments have also carried out the decision. That is the case for an order that
# was accepted when both parts have one of these statuses.
ACCEPTED = (CONFIRMED, SHIPPED, DELIVERED)
SETTLED_STOCK = "COMMITTED"
# An administrator may have refunded a part or all of what was captured.
SETTLED_PAYMENT = ("CAPTURED", "PARTIALLY_REFUNDED", "REFUNDED")

# A cancelled order is settled when its parts have none of these; the texts say which compensation is missing.
UNRELEASED_STOCK = {
    "RESERVED": "inventory has not released the stock (order.cancelled)",
    "COMMITTED": "inventory has not taken the stock back (order.cancelled)",
}
UNRETURNED_PAYMENT = {
    "AUTHORIZED": "payments has not voided the payment (order.cancelled)",
    "CAPTURED": "payments has not refunded the payment (order.cancelled)",
    "PARTIALLY_REFUNDED": "payments has not refunded the rest of the payment (order.cancelled)",
}


def apply_reply(saga: Saga, reply: type[Event], *, returned: bool = False) -> Saga:
    """Return the state after a reply of inventory or payments, confirmed or cancelled if the reply decides the order.

    `reply` is the class of the event. `returned` is true if the released stock was committed, and not only reserved.
    """
    part, status = REPLIES[reply]
    if returned:
        status = "RETURNED"
    if part == "stock" and PROGRESS[status] > PROGRESS[saga.stock]:
        saga = replace(saga, stock=status)
    elif part == "payment" and PROGRESS[status] > PROGRESS[saga.payment]:
        saga = replace(saga, payment=status)
    return _decide(saga)


def apply_command(saga: Saga, command: Command) -> Saga | None:
    """Return the state after a command; None if the command is not allowed in the order's status."""
    allowed_in, status, reason = COMMANDS[command]
    if saga.status not in allowed_in:
        return None
    return _change_status(saga, status, reason)


def awaits(saga: Saga) -> list[str]:
    """Return what this order still waits for, one text each; an empty list once it is settled."""
    if saga.status is UNDECIDED:
        return _missing_replies(saga) or ["orders has not decided, though both have replied"]
    if saga.status is CANCELLED:
        return [
            *([UNRELEASED_STOCK[saga.stock]] if saga.stock in UNRELEASED_STOCK else []),
            *([UNRETURNED_PAYMENT[saga.payment]] if saga.payment in UNRETURNED_PAYMENT else []),
        ]
    missing = []
    if saga.stock != SETTLED_STOCK:
        missing.append("inventory has not committed the stock (order.confirmed)")
    if saga.payment not in SETTLED_PAYMENT:
        missing.append("payments has not captured the payment (order.confirmed)")
    return missing


def is_unsettled(saga: Saga) -> bool:
    """Tell whether the order still waits for a decision, a commit, a capture or a compensation."""
    return bool(awaits(saga))


def _missing_replies(saga: Saga) -> list[str]:
    parts = {"inventory": saga.stock, "payments": saga.payment}
    return [f"{service} has not replied to order.created" for service, status in parts.items() if status == "PENDING"]


def _decide(saga: Saga) -> Saga:
    if saga.status is not UNDECIDED:
        return saga
    if saga.stock == "FAILED":
        return _change_status(saga, CANCELLED, CancelReason.OUT_OF_STOCK)
    if saga.payment == "FAILED":
        return _change_status(saga, CANCELLED, CancelReason.PAYMENT_FAILED)
    if saga.stock == "RESERVED" and saga.payment == "AUTHORIZED":
        return _change_status(saga, CONFIRMED, None)
    return saga


def _change_status(saga: Saga, status: OrderStatus, reason: CancelReason | None) -> Saga:
    if status not in TRANSITIONS[saga.status]:
        raise AssertionError(f"{saga.status} cannot become {status}")
    return replace(saga, status=status, cancel_reason=reason)
