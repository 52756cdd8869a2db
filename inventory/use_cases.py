"""The use cases of the inventory service. They never commit: the entrypoint does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contracts.base import Actor, Cause, Publish, Received
from contracts.errors import FieldError, ValidationFailed
from contracts.etags import require_match
from contracts.inventory import AdjustStock, SetStock, SetStockLevel, SetThreshold, StockNotFound, StockView
from contracts.orders import OrderCancelled, OrderCreated, ProductUnavailable
from extensions.storage.bulk import insert_rows
from inventory import queries, rules
from inventory.ledger import Ledger
from inventory.models import Base, ProductReplica, Stock

_RESERVATIONS, _RESERVATION_LINES, _REPLICAS = (
    Base.metadata.tables[name] for name in ("reservations", "reservation_lines", "product_replicas")
)
_NEW_STATUS = "(order_id) DO UPDATE SET status = excluded.status, updated_at = clock_timestamp()"
_NEWER_PRODUCT = (
    "(id) DO UPDATE SET sku = excluded.sku, version = excluded.version"
    " WHERE product_replicas.version < excluded.version"
)
_COPY_SKUS = text(
    "UPDATE stock SET product_sku = known.sku, updated_at = clock_timestamp() FROM product_replicas AS known"
    " WHERE known.id = product_id AND known.id = ANY(:ids) AND product_sku <> known.sku"
)

FIRST, SET, ADJUSTED = "FIRST", "SET", "ADJUSTED"
"""Kinds of ledger entries made by people. An entry caused by an order has the reservation's new status as its kind."""


@dataclass(frozen=True, slots=True)
class Call:
    """The request of an administrator: the cause of what it changes, and where its events are published."""

    cause: Cause
    publish: Publish


class Product(Protocol):
    """What inventory keeps of a product: a ProductView of catalog, or an event about it."""

    @property
    def id(self) -> UUID: ...
    @property
    def sku(self) -> str: ...
    @property
    def version(self) -> int: ...


def apply_order_events(session: Session, events: Sequence[Received[rules.OrderEvent]], publish: Publish) -> None:
    """Reserve all lines of a new order or none; commit those of a confirmed order; release those of a cancelled order.

    Locks reservations and stock, applies the rules to each event, and writes all rows at the end. Raises
    ReservationMissing, before it writes anything, for the confirmation of an order without a reservation.
    """
    order_ids = [received.event.order_id for received in events]
    statuses = queries.lock_reservations(session, order_ids)
    lines = _lines(session, events)
    ledger = Ledger(queries.lock_stock(session, {product_id for asked in lines.values() for product_id in asked}))
    changed: set[UUID] = set()
    reserved: list[dict[str, Any]] = []
    for received in events:
        order_id = received.event.order_id
        decision = rules.decide(statuses.get(order_id), received.event, lines.get(order_id, {}), ledger.stock)
        if decision is None:
            continue
        statuses[order_id] = decision.status
        changed.add(order_id)
        reason = received.event.reason if isinstance(received.event, OrderCancelled) else None
        for product_id, change in decision.changes.items():
            ledger.enter(product_id, change, decision.status, cause=received, order_id=order_id, reason=reason)
        if decision.status is rules.Status.RESERVED:
            reserved += [
                {"order_id": order_id, "product_id": product_id, "quantity": change.reserved}
                for product_id, change in decision.changes.items()
            ]
        if decision.event:
            publish(decision.event, received)
    rows = [{"order_id": order_id, "status": statuses[order_id]} for order_id in changed]
    insert_rows(session, _RESERVATIONS, rows, on_conflict=_NEW_STATUS)
    insert_rows(session, _RESERVATION_LINES, reserved)
    ledger.write(session, publish)


def replicate_products(session: Session, products: Sequence[Product]) -> None:
    """Store the skus of products, and write changed ones into their stock records. A stored newer version stays."""
    newest: dict[UUID, Product] = {}
    for product in products:
        if product.id not in newest or product.version > newest[product.id].version:
            newest[product.id] = product
    rows = [{"id": each.id, "sku": each.sku, "version": each.version} for _, each in sorted(newest.items())]
    insert_rows(session, _REPLICAS, rows, on_conflict=_NEWER_PRODUCT)
    queries.lock_stock(session, newest)
    session.execute(_COPY_SKUS, {"ids": list(newest)})


def set_stock(
    session: Session, request: SetStock, actor: Actor, call: Call, products: Sequence[Product] = ()
) -> tuple[StockView, bool]:
    """Set what is on hand of a product; also returns whether this is its first stock record.

    `products` are what catalog has just returned for this product. Raises ProductUnavailable if there is no replica of
    it then, ValidationFailed for a wrong sku, StockIsReserved.
    """
    actor.require_admin()
    product_id = request.product_id
    if products:
        replicate_products(session, products)
    sku = _sku_of(session, request)
    created = _add_empty(session, product_id, sku)
    ledger = Ledger(queries.lock_stock(session, [product_id]))
    change = rules.set_level(ledger.stock[product_id], request.quantity)
    ledger.enter(product_id, change, FIRST if created else SET, cause=call.cause, actor_id=actor.user_id)
    ledger.write(session, call.publish)
    stock = _read(session, product_id)
    stock.product_sku = sku
    return StockView.model_validate(stock), created


def is_certain(replica: ProductReplica | None, request: SetStock) -> bool:
    """Tell whether the replica alone shows that `request` is about an existing product, with its sku."""
    return replica is not None and request.product_sku in (None, replica.sku)


def _sku_of(session: Session, request: SetStock) -> str:
    replica = queries.lock_replica(session, request.product_id)
    if replica is None:
        problem = FieldError("product_id", f"there is no product {request.product_id}")
        raise ProductUnavailable(f"{problem.field}: {problem.message}", [problem])
    if request.product_sku not in (None, replica.sku):
        raise ValidationFailed.field("product_sku", f"this product's sku is {replica.sku}")
    return replica.sku


def change_stock_level(
    session: Session,
    product_id: UUID,
    request: SetStockLevel,
    actor: Actor,
    call: Call,
    if_match: Sequence[str] | None = None,
) -> StockView:
    """Set what is on hand of a product that has a stock record.

    Raises StockNotFound, PreconditionFailed where `if_match` does not have its entity tag, StockIsReserved.
    """
    actor.require_admin()
    ledger = _ledger_of(session, product_id)
    require_match(StockView.model_validate(_read(session, product_id)), if_match)
    change = rules.set_level(ledger.stock[product_id], request.quantity)
    ledger.enter(product_id, change, SET, cause=call.cause, actor_id=actor.user_id)
    ledger.write(session, call.publish)
    return StockView.model_validate(_read(session, product_id))


def set_threshold(
    session: Session,
    product_id: UUID,
    request: SetThreshold,
    actor: Actor,
    call: Call,
    if_match: Sequence[str] | None = None,
) -> StockView:
    """Set the threshold of a product that has a stock record, or remove it.

    Raises StockNotFound, PreconditionFailed where `if_match` does not have its entity tag.
    """
    actor.require_admin()
    ledger = _ledger_of(session, product_id)
    require_match(StockView.model_validate(_read(session, product_id)), if_match)
    ledger.set_threshold(product_id, request.low_stock, call.cause)
    ledger.write(session, call.publish)
    return StockView.model_validate(_read(session, product_id))


def adjust_stock(session: Session, product_id: UUID, request: AdjustStock, actor: Actor, call: Call) -> StockView:
    """Change what is on hand of a product; raises StockNotFound, StockIsReserved, ValidationFailed."""
    actor.require_admin()
    ledger = _ledger_of(session, product_id)
    change = rules.adjust(ledger.stock[product_id], request.delta)
    ledger.enter(product_id, change, ADJUSTED, cause=call.cause, reason=request.reason, actor_id=actor.user_id)
    ledger.write(session, call.publish)
    return StockView.model_validate(_read(session, product_id))


def _lines(session: Session, events: Sequence[Received[rules.OrderEvent]]) -> dict[UUID, Mapping[UUID, int]]:
    """Return the units per product of each order: from its reservation if there is one, else from the order."""
    lines: dict[UUID, Mapping[UUID, int]] = {}
    held = set()
    for received in events:
        order = received.event
        if isinstance(order, OrderCreated):
            lines.setdefault(order.order_id, rules.merge(order.items))
        else:
            held.add(order.order_id)
    return lines | queries.lines_of(session, held) if held else lines


def _add_empty(session: Session, product_id: UUID, sku: str) -> bool:
    """Add a stock record of zero units if the product has none. Returns whether it was added."""
    row = {"product_id": product_id, "product_sku": sku, "on_hand": 0, "reserved": 0}
    added = session.execute(insert(Stock).values(row).on_conflict_do_nothing().returning(Stock.product_id))
    return added.first() is not None


def _ledger_of(session: Session, product_id: UUID) -> Ledger:
    stock = queries.lock_stock(session, [product_id])
    if product_id not in stock:
        raise StockNotFound
    return Ledger(stock)


def _read(session: Session, product_id: UUID) -> Stock:
    return session.get_one(Stock, product_id, populate_existing=True)
