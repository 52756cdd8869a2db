"""The messages of one order, their consumers, and the bits that record their stages."""

from decimal import Decimal
from types import SimpleNamespace
from uuid import UUID

from contracts.base import Received
from contracts.events import EVENTS
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderLine

CREATED, CONFIRMED, CANCELLED = 0, 1, 2

# (event, whether it is a release of committed stock). Each may be published only once per order.
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
AUTHORIZED, DECLINED, CAPTURED, VOIDED, REFUNDED = 1, 2, 4, 8, 16

# Every step of a payment leads to a higher rank, except that a reference may be noted while it is voided.
_PAYMENT_RANKS = (
    {"PENDING"},
    {"CANCELLING", "AUTHORIZED"},
    {"CAPTURING", "VOIDING"},
    {"CAPTURING_TO_REFUND", "CAPTURED"},
    {"REFUNDING"},
    {"FAILED", "VOIDED", "REFUNDED", "CANCELLED_BEFORE"},
)

PRODUCTS = [UUID(int=0xA0 + number) for number in range(4)]
PRODUCT_OF = {product: number for number, product in enumerate(PRODUCTS)}
ORDERS = [UUID(int=0x10 + number) for number in range(4)]
USER = UUID(int=0xFF)
TOTAL = Decimal("20.00")


def was_published(message: str, bits: int, *, returned: bool = False) -> bool:
    """Whether the message is committed to the outbox."""
    return bool(bits & STAGES[INDEX[message, returned]][0])


def payment_words(row: tuple[str, bool, bool]) -> str:
    """Describe a payment's row."""
    status, capture_requested, cancel_requested = row
    confirmed = capture_requested and status == "AUTHORIZED"
    return status + ", confirmed" * confirmed + ", cancelled" * cancel_requested


def payment_rank(state: str | None) -> int:
    """Return how far a payment has come; -1 without a payment."""
    return next((rank for rank, states in enumerate(_PAYMENT_RANKS) if state in states), -1)


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


def index_of(event) -> int:
    """Return the message number of an event."""
    return INDEX[event.event_type, getattr(event, "returned", False)]


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
