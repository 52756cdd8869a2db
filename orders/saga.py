"""How an order succeeds or fails. The state machine as data and pure functions; nothing else decides.

    CREATED --stock reserved and payment authorised--> CONFIRMED --ship--> SHIPPED --deliver--> DELIVERED
       |                                                   |
       +--stock failed, payment failed, deadline, cancel-->+--cancel--> CANCELLED

Orders announces each new status by an event. Inventory and payments act on it: `order.confirmed` makes them commit
and capture, `order.cancelled` makes them give back whatever they hold. They answer by events too, which this module
hears; an answer may come late, twice, or in any order, so statuses only ever move forward.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from contracts.orders import CancelReason, OrderStatus

CREATED, CONFIRMED, SHIPPED, DELIVERED, CANCELLED = OrderStatus


class Command(StrEnum):
    """What a person or the clock demands."""

    CANCEL_BY_USER = "cancel by the user"
    CANCEL_BY_ADMIN = "cancel by an admin"
    EXPIRE = "deadline"
    SHIP = "ship"
    DELIVER = "deliver"


@dataclass(frozen=True, slots=True)
class Saga:
    """Where one order stands."""

    status: OrderStatus = CREATED
    stock: str = "PENDING"
    payment: str = "PENDING"
    cancel_reason: CancelReason | None = None


# What an order may become: every transition that exists.
TRANSITIONS: dict[OrderStatus, frozenset[OrderStatus]] = {
    CREATED: frozenset({CONFIRMED, CANCELLED}),
    CONFIRMED: frozenset({SHIPPED, CANCELLED}),
    SHIPPED: frozenset({DELIVERED}),
    DELIVERED: frozenset(),
    CANCELLED: frozenset(),
}

# From which status a command is possible, and what it leads to.
COMMANDS: dict[Command, tuple[frozenset[OrderStatus], OrderStatus, CancelReason | None]] = {
    Command.CANCEL_BY_USER: (frozenset({CREATED, CONFIRMED}), CANCELLED, CancelReason.USER),
    Command.CANCEL_BY_ADMIN: (frozenset({CREATED, CONFIRMED}), CANCELLED, CancelReason.ADMIN),
    Command.EXPIRE: (frozenset({CREATED}), CANCELLED, CancelReason.TIMEOUT),
    Command.SHIP: (frozenset({CONFIRMED}), SHIPPED, None),
    Command.DELIVER: (frozenset({SHIPPED}), DELIVERED, None),
}

# What each answer says: which of the two statuses it moves, and to where.
REPLIES: dict[str, tuple[str, str]] = {
    "inventory.stock_reserved": ("stock", "RESERVED"),
    "inventory.stock_failed": ("stock", "FAILED"),
    "inventory.stock_committed": ("stock", "COMMITTED"),
    "inventory.stock_released": ("stock", "RELEASED"),
    "payment.authorized": ("payment", "AUTHORIZED"),
    "payment.failed": ("payment", "FAILED"),
    "payment.captured": ("payment", "CAPTURED"),
    "payment.voided": ("payment", "VOIDED"),
    "payment.refunded": ("payment", "REFUNDED"),
}

# How far along a stock or payment status is: a late answer never moves it back.
PROGRESS = {
    "PENDING": 0,
    "RESERVED": 1,
    "AUTHORIZED": 1,
    "COMMITTED": 2,
    "CAPTURED": 2,
    "FAILED": 3,
    "RELEASED": 3,
    "RETURNED": 3,
    "VOIDED": 3,
    "REFUNDED": 3,
}

# What a cancelled order must not hold for long, and who has not given it back.
NOT_UNDONE = {
    "RESERVED": "inventory has not released the stock (order.cancelled)",
    "COMMITTED": "inventory has not taken the stock back (order.cancelled)",
    "AUTHORIZED": "payments has not voided the payment (order.cancelled)",
    "CAPTURED": "payments has not refunded the payment (order.cancelled)",
}


def apply_reply(saga: Saga, answer: str, *, returned: bool = False) -> Saga:
    """Return the order after an answer of inventory or payments, decided if that settles it.

    `answer` is an event's name; `returned` tells a release of committed stock from one of reserved stock.
    """
    part, status = REPLIES[answer]
    if returned:
        status = "RETURNED"
    if part == "stock" and PROGRESS[status] > PROGRESS[saga.stock]:
        saga = replace(saga, stock=status)
    elif part == "payment" and PROGRESS[status] > PROGRESS[saga.payment]:
        saga = replace(saga, payment=status)
    return _decide(saga)


def apply_command(saga: Saga, command: Command) -> Saga | None:
    """Return the order after a command, None where it comes too late or too early."""
    possible_in, status, reason = COMMANDS[command]
    if saga.status not in possible_in:
        return None
    return _become(saga, status, reason)


def awaits(saga: Saga) -> list[str]:
    """Return what this order still waits for, and from whom; nothing once it is settled."""
    if saga.status is CREATED:
        return _unanswered(saga) or ["orders has not decided, though both have answered"]
    if saga.status is CANCELLED:
        return [NOT_UNDONE[held] for held in (saga.stock, saga.payment) if held in NOT_UNDONE]
    missing = []
    if saga.stock != "COMMITTED":
        missing.append("inventory has not committed the stock (order.confirmed)")
    if saga.payment != "CAPTURED":
        missing.append("payments has not captured the payment (order.confirmed)")
    return missing


def is_stuck(saga: Saga) -> bool:
    """Tell whether somebody still owes this order something: a decision, a commit, a capture or a compensation."""
    return bool(awaits(saga))


def _unanswered(saga: Saga) -> list[str]:
    parts = {"inventory": saga.stock, "payments": saga.payment}
    return [f"{service} has not answered order.created" for service, said in parts.items() if said == "PENDING"]


def _decide(saga: Saga) -> Saga:
    if saga.status is not CREATED:
        return saga
    if saga.stock == "FAILED":
        return _become(saga, CANCELLED, CancelReason.OUT_OF_STOCK)
    if saga.payment == "FAILED":
        return _become(saga, CANCELLED, CancelReason.PAYMENT_FAILED)
    if saga.stock == "RESERVED" and saga.payment == "AUTHORIZED":
        return _become(saga, CONFIRMED, None)
    return saga


def _become(saga: Saga, status: OrderStatus, reason: CancelReason | None) -> Saga:
    if status not in TRANSITIONS[saga.status]:
        raise AssertionError(f"{saga.status} cannot become {status}")
    return replace(saga, status=status, cancel_reason=reason)
