"""The states of a reservation, as data and pure functions: no I/O.

All decisions about stock are made here, so that they can be tested and explored without a database.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from uuid import UUID

from contracts.base import MAX_STOCK, Event
from contracts.errors import ValidationFailed
from contracts.inventory import Shortage, StockCommitted, StockFailed, StockIsReserved, StockReleased, StockReserved
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated, OrderLine

OrderEvent = OrderCreated | OrderConfirmed | OrderCancelled


class Status(StrEnum):
    """The state of an order's reservation."""

    RESERVED = "RESERVED"
    FAILED = "FAILED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    RETURNED = "RETURNED"
    CANCELLED_BEFORE = "CANCELLED_BEFORE"
    """A tombstone: `order.cancelled` came before `order.created`, so the order never gets stock."""


class ReservationMissing(Exception):
    """A confirmed order has no reservation. This happens only if an event was lost."""


@dataclass(frozen=True, slots=True)
class Step:
    """The new state of a reservation, and the change of stock for each unit of its lines."""

    becomes: Status
    on_hand: int = 0
    reserved: int = 0
    publishes: Callable[..., Event] | None = None


STEPS: Mapping[tuple[Status | None, type[Event]], Step] = {
    (None, OrderCreated): Step(Status.RESERVED, reserved=+1, publishes=StockReserved),  # or FAILED: see decide
    (Status.RESERVED, OrderConfirmed): Step(Status.COMMITTED, on_hand=-1, reserved=-1, publishes=StockCommitted),
    (Status.RESERVED, OrderCancelled): Step(Status.RELEASED, reserved=-1, publishes=StockReleased),
    (Status.COMMITTED, OrderCancelled): Step(
        Status.RETURNED, on_hand=+1, publishes=partial(StockReleased, returned=True)
    ),
    (None, OrderCancelled): Step(Status.CANCELLED_BEFORE),
}
"""Other combinations change nothing, except a confirmation without a reservation, which is an error."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Units of one product. A product without a stock record has none."""

    on_hand: int = 0
    reserved: int = 0

    @property
    def available(self) -> int:
        """Units that can still be reserved."""
        return self.on_hand - self.reserved

    def plus(self, change: "Change") -> "Balance":
        """Return the balance after `change`."""
        return Balance(self.on_hand + change.on_hand, self.reserved + change.reserved)


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one product's balance, in units; negative when it decreases."""

    on_hand: int = 0
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Threshold:
    """The threshold of a product, and whether its stock is low already. None: there is no threshold."""

    low_stock: int | None = None
    is_low: bool = False

    def is_crossed(self, balance: Balance) -> bool:
        """Tell whether fewer units are available than the threshold says."""
        return self.low_stock is not None and balance.available < self.low_stock


@dataclass(frozen=True, slots=True)
class Decision:
    """The new state of a reservation, the changes of stock, and the event to publish."""

    status: Status
    changes: Mapping[UUID, Change]
    event: Event | None = None


def step_for(status: Status | None, trigger: type[Event]) -> Step | None:
    """Return the step for `trigger` in `status` (None: there is no reservation); None if nothing changes."""
    if status is None and trigger is OrderConfirmed:
        raise ReservationMissing("an order was confirmed for which inventory has no reservation")
    return STEPS.get((status, trigger))


def decide(
    status: Status | None, event: OrderEvent, lines: Mapping[UUID, int], stock: Mapping[UUID, Balance]
) -> Decision | None:
    """Return the decision about `event`; None if it changes nothing.

    `lines` are the units per product that the order asks for (OrderCreated) or that its reservation has.
    Raises ReservationMissing for a confirmation without a reservation.
    """
    step = step_for(status, type(event))
    if step is None:
        return None
    if step.becomes is Status.RESERVED and (short := shortages(lines, stock)):
        return Decision(Status.FAILED, {}, _failed(event.order_id, short, len(lines)))
    # A tombstone changes no stock, also if `order.created` is in the same batch and the lines are known.
    moved = lines if step.on_hand or step.reserved else {}
    changes = {
        product_id: Change(step.on_hand * quantity, step.reserved * quantity) for product_id, quantity in moved.items()
    }
    return Decision(step.becomes, changes, step.publishes(order_id=event.order_id) if step.publishes else None)


def merge(items: Iterable[OrderLine]) -> dict[UUID, int]:
    """Return the units per product: an order may name a product on more than one line."""
    lines: dict[UUID, int] = {}
    for item in items:
        lines[item.product_id] = lines.get(item.product_id, 0) + item.quantity
    return lines


def shortages(lines: Mapping[UUID, int], stock: Mapping[UUID, Balance]) -> tuple[Shortage, ...]:
    """Return the products with fewer available units than `lines` ask for."""
    return tuple(
        Shortage(product_id=product_id, requested=quantity, available=available)
        for product_id, quantity in lines.items()
        if (available := stock.get(product_id, Balance()).available) < quantity
    )


def set_level(balance: Balance, quantity: int) -> Change:
    """Return the change that leaves `quantity` on hand; raises StockIsReserved below what is reserved."""
    return adjust(balance, quantity - balance.on_hand)


def adjust(balance: Balance, delta: int) -> Change:
    """Return the change of `delta` on hand; raises StockIsReserved, or ValidationFailed above MAX_STOCK.

    A cancelled order that comes back can leave more than MAX_STOCK. Then every decrease is possible.
    """
    on_hand = balance.on_hand + delta
    if on_hand < 0:
        raise StockIsReserved(f"There are {balance.on_hand} on hand; the quantity cannot become negative.")
    if on_hand < balance.reserved:
        message = f"{on_hand} would be on hand, less than the {balance.reserved} that are reserved for orders."
        raise StockIsReserved(message)
    if delta > 0 and on_hand > MAX_STOCK:
        raise ValidationFailed.field("delta", f"would leave more than {MAX_STOCK} on hand, there are {balance.on_hand}")
    return Change(on_hand=delta)


def _failed(order_id: UUID, short: tuple[Shortage, ...], lines: int) -> StockFailed:
    reason = f"not enough stock of {len(short)} of {lines} products"
    return StockFailed(order_id=order_id, reason=reason, shortages=short)
