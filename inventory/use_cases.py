"""What changes stock. Nothing here commits: the entrypoint does."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contracts.base import Actor, Publish, Received
from contracts.etags import require_match
from contracts.inventory import AdjustStock, SetStock, SetStockLevel, StockNotFound, StockView
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from inventory import queries, rules
from inventory.ledger import Ledger
from inventory.models import Reservation, ReservationLine, Stock

FIRST, SET, ADJUSTED = "FIRST", "SET", "ADJUSTED"
"""Kinds of ledger entries that people cause. Those that orders cause are named like the reservation's new status."""


def reserve_stock(session: Session, events: Sequence[Received[OrderCreated]], publish: Publish) -> None:
    """Reserve all lines of each order, or none of them."""
    asked = {received.event.order_id: rules.merge(received.event.items) for received in events}
    _settle(session, events, publish, asked)


def commit_stock(session: Session, events: Sequence[Received[OrderConfirmed]], publish: Publish) -> None:
    """Take what the orders reserved off the shelf. Raises ReservationMissing before it changes anything."""
    _settle(session, events, publish)


def release_stock(session: Session, events: Sequence[Received[OrderCancelled]], publish: Publish) -> None:
    """Give back what the orders hold or took, and remember the cancellation of those that are still unknown."""
    _settle(session, events, publish)


def set_stock(session: Session, request: SetStock, actor: Actor) -> tuple[StockView, bool]:
    """Set what is on hand of a product; also returns whether this is its first stock record.

    Raises StockIsReserved.
    """
    actor.require_admin()
    product_id = request.product_id
    created = _add_empty(session, product_id, request.product_sku)
    ledger = Ledger(queries.lock_stock(session, [product_id]))
    change = rules.set_level(ledger.stock[product_id], request.quantity)
    ledger.enter(product_id, change, FIRST if created else SET)
    ledger.write(session)
    stock = _read(session, product_id)
    stock.product_sku = request.product_sku
    return StockView.model_validate(stock), created


def change_stock_level(
    session: Session, product_id: UUID, request: SetStockLevel, actor: Actor, if_match: Sequence[str] | None = None
) -> StockView:
    """Set what is on hand of a product that has a stock record.

    Raises StockNotFound, PreconditionFailed where `if_match` does not have its entity tag, StockIsReserved.
    """
    actor.require_admin()
    ledger = _ledger_of(session, product_id)
    require_match(StockView.model_validate(_read(session, product_id)), if_match)
    ledger.enter(product_id, rules.set_level(ledger.stock[product_id], request.quantity), SET)
    ledger.write(session)
    return StockView.model_validate(_read(session, product_id))


def adjust_stock(session: Session, product_id: UUID, request: AdjustStock, actor: Actor) -> StockView:
    """Change what is on hand of a product; raises StockNotFound, StockIsReserved, ValidationFailed."""
    actor.require_admin()
    ledger = _ledger_of(session, product_id)
    change = rules.adjust(ledger.stock[product_id], request.delta)
    ledger.enter(product_id, change, ADJUSTED, reason=request.reason)
    ledger.write(session)
    return StockView.model_validate(_read(session, product_id))


def _settle(
    session: Session,
    events: Sequence[Received[Any]],
    publish: Publish,
    asked: Mapping[UUID, Mapping[UUID, int]] | None = None,
) -> None:
    """Lock what the events are about, let the rules decide about each in turn, and write it all at once.

    `asked` is what new orders ask for; without it, the reservations' own lines count.
    """
    statuses = queries.lock_reservations(session, [received.event.order_id for received in events])
    due = [each for each in events if rules.step_for(statuses.get(each.event.order_id), type(each.event))]
    lines = queries.lines_of(session, [each.event.order_id for each in due]) if asked is None else asked
    products = {product_id for each in due for product_id in lines.get(each.event.order_id, ())}
    ledger = Ledger(queries.lock_stock(session, products))
    decisions: dict[UUID, rules.Decision] = {}
    for each in due:
        order_id = each.event.order_id
        decision = rules.decide(statuses.get(order_id), each.event, lines.get(order_id, {}), ledger.stock)
        if decision is None:  # a second event about this order in the same batch
            continue
        statuses[order_id] = decision.status
        decisions[order_id] = decision
        for product_id, change in decision.changes.items():
            ledger.enter(product_id, change, decision.status, order_id=order_id)
        if decision.event:
            publish(decision.event, each)
    _write_reservations(session, decisions)
    ledger.write(session)


def _write_reservations(session: Session, decisions: Mapping[UUID, rules.Decision]) -> None:
    if not decisions:
        return
    rows = [{"order_id": order_id, "status": decision.status} for order_id, decision in decisions.items()]
    new = insert(Reservation)
    session.execute(
        new.on_conflict_do_update(
            index_elements=["order_id"], set_={"status": new.excluded.status, "updated_at": func.clock_timestamp()}
        ),
        rows,
    )
    lines = [
        {"order_id": order_id, "product_id": product_id, "quantity": change.reserved}
        for order_id, decision in decisions.items()
        if decision.status is rules.Status.RESERVED
        for product_id, change in decision.changes.items()
    ]
    if lines:
        session.execute(insert(ReservationLine), lines)


def _add_empty(session: Session, product_id: UUID, sku: str) -> bool:
    """Give the product a stock record of nothing unless it has one; return whether it had none."""
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
