"""The messages of one order, their consumers, and the bits that record their stages."""

from decimal import Decimal
from types import SimpleNamespace
from typing import NamedTuple
from uuid import UUID

from contracts.base import Received
from contracts.events import EVENTS
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderLine

CREATED, CONFIRMED, CANCELLED = 0, 1, 2

# An administrator's refunds of an order are numbered; the refund of the rest of a cancelled order has the number REST.
REST = 3
# (event, variant): whether it is a release of committed stock, or the number of the refund, which is not the last one.
# Each may be published only once per order.
MESSAGES = (
    ("order.created", False),
    ("order.confirmed", False),
    ("order.cancelled", False),
    ("inventory.stock_reserved", False),
    ("inventory.stock_failed", False),
    ("inventory.stock_committed", False),
    ("inventory.stock_released", False),
    ("inventory.stock_released", True),
    ("payment.authorized", False),
    ("payment.failed", False),
    ("payment.captured", False),
    ("payment.voided", False),
    ("payment.refunded", False),
    *(("payment.partially_refunded", f"refund {number}") for number in range(REST)),
)
INDEX = {message: index for index, message in enumerate(MESSAGES)}
DECIDING = ("orders", "inventory", "payments")

# One bit each, per message: written to the outbox, on the bus, deleted from the outbox, handled by each consumer.
_COUNT = len(MESSAGES)
STAGES = [(1 << index, 1 << index + _COUNT, 1 << index + 2 * _COUNT) for index in range(_COUNT)]
CONSUMERS = [
    [
        (service, 1 << index + (4 if service == "payments" else 3) * _COUNT)
        for service in EVENTS[event].consumers
        if service in DECIDING
    ]
    for index, (event, _) in enumerate(MESSAGES)
]

# The provider's operations for an order. It also remembers those of our transactions that were rolled back.
AUTHORIZED, DECLINED, CAPTURED, VOIDED = 1, 2, 4, 8
# Above these bits: how many units it has given back by each refund.
_REFUNDS, _WIDTH = 4, 3

# Every step of a payment leads to a higher rank, except that a reference may be noted while it is voided. Among the
# states of one rank, the number of refunds that were requested or made grows.
_PAYMENT_RANKS = (
    {"PENDING"},
    {"CANCELLING", "AUTHORIZED"},
    {"CAPTURING", "VOIDING"},
    {"CAPTURING_TO_REFUND", "CAPTURED", "REFUNDING_PART", "PARTIALLY_REFUNDED", "REFUNDING_MORE"},
    {"REFUNDING", "REFUNDING_REST"},
    {"FAILED", "VOIDED", "REFUNDED", "CANCELLED_BEFORE"},
)

PRODUCTS = [UUID(int=0xA0 + number) for number in range(4)]
PRODUCT_OF = {product: number for number, product in enumerate(PRODUCTS)}
ORDERS = [UUID(int=0x10 + number) for number in range(4)]
USER = UUID(int=0xFF)
UNITS = 4
UNIT = Decimal("5.00")
TOTAL = UNITS * UNIT


class Refund(NamedTuple):
    """A refund of a payment, in the order in which they were requested."""

    number: int
    units: int
    is_made: bool


class PaymentRow(NamedTuple):
    """The row of a payment, with its sums in units, and its refunds."""

    status: str
    capture_requested: bool = False
    cancel_requested: bool = False
    requested: int = 0
    refunded: int = 0
    refunds: tuple[Refund, ...] = ()


def given_back(money: int, number: int) -> int:
    """Return how many units the provider has given back by this refund."""
    return money >> _REFUNDS + number * _WIDTH & (1 << _WIDTH) - 1


def giving_back(number: int, units: int) -> int:
    """Return the bits of what the provider has given back by this refund."""
    return units << _REFUNDS + number * _WIDTH


def all_given_back(money: int) -> int:
    """Return how many units the provider has given back."""
    return sum(given_back(money, number) for number in range(REST + 1))


def without_refunds(money: int) -> int:
    """Return what the provider has done, except refunds."""
    return money & (1 << _REFUNDS) - 1


def was_published(message: str, bits: int, *, returned: bool = False) -> bool:
    """Whether the message is committed to the outbox."""
    return bool(bits & STAGES[INDEX[message, returned]][0])


def name_of(message: int) -> str:
    """Return the event of a message, and its variant."""
    event, variant = MESSAGES[message]
    return event + ("" if variant is False else ", returned" if variant is True else f", {variant}")


def payment_words(row: PaymentRow) -> str:
    """Describe a payment's row."""
    confirmed = row.capture_requested and row.status == "AUTHORIZED"
    requested = row.refunded < row.requested and not row.cancel_requested
    return (
        row.status + ", confirmed" * confirmed + ", refund requested" * requested + ", cancelled" * row.cancel_requested
    )


def payment_rank(state: str | None, row: PaymentRow | None) -> tuple[int, int]:
    """Return how far a payment has come; (-1, 0) without a payment."""
    if row is None:
        return -1, 0
    rank = next(rank for rank, states in enumerate(_PAYMENT_RANKS) if state in states)
    return rank, len(row.refunds) + sum(refund.is_made for refund in row.refunds)


def received(number: int, message: int, lines: tuple[tuple[int, int], ...]) -> Received:
    """Return a delivery of one of the order's messages, or of a reply to it."""
    order_id = ORDERS[number]
    facts = {"order_id": order_id, "user_id": USER, "total_amount": TOTAL, "currency": "TRY"}
    if message == CREATED:
        event = OrderCreated(items=tuple(_line(product, quantity) for product, quantity in lines), **facts)
    elif message == CONFIRMED:
        event = OrderConfirmed(**facts)
    else:
        event = OrderCancelled(order_id=order_id, user_id=USER, reason=CancelReason.USER)
    return Received(event, UUID(int=message), "request", "trace")


def index_of(event, refund: int = REST) -> int:
    """Return the message number of an event; `refund` is the number of the refund that it is about."""
    if (event.event_type, False) in INDEX:
        return INDEX[event.event_type, getattr(event, "returned", False)]
    return INDEX[event.event_type, f"refund {refund}"]


def is_consumed(event) -> bool:
    """Whether a deciding service consumes this event."""
    return (event.event_type, getattr(event, "returned", False)) in INDEX


def order_row(number: int, saga) -> SimpleNamespace:
    """Return an order's row as the use cases read it."""
    return SimpleNamespace(
        id=ORDERS[number],
        user_id=USER,
        total_amount=TOTAL,
        currency="TRY",
        status=saga.status,
        stock_status=saga.stock,
        payment_status=saga.payment,
        cancel_reason=saga.cancel_reason,
        version=1,
    )


def _line(product: int, quantity: int) -> OrderLine:
    return OrderLine(product_id=PRODUCTS[product], product_sku="SKU", quantity=quantity, price_snapshot=Decimal(1))
