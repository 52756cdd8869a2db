"""The queries of the inventory service. The functions named lock_* also lock the rows until the transaction ends.

Lock order, which prevents deadlocks: orders, then reservations, then replicas of products, then stock; within each,
sorted by id.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from contracts.base import Actor, Json, Page, PageRequest, page_of
from contracts.inventory import MovementView, StockFilter, StockNotFound, StockView
from extensions.storage.pagination import fetch_page
from inventory.models import Movement, ProductReplica, Reservation, ReservationLine, Stock
from inventory.rules import Balance, Status, Threshold

_LOCK_KEYS = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


def list_stock(session: Session, wanted: StockFilter, actor: Actor) -> Json[Page[StockView]]:
    """Return a page of StockView, the newest stock records first."""
    actor.require_admin()
    keys = [Stock.created_at, Stock.product_id]
    rows, cursor = fetch_page(session, select(Stock), keys=keys, limit=wanted.limit, cursor=wanted.cursor)
    return page_of([StockView.model_validate(row) for row in rows], cursor)


def get_stock(session: Session, product_id: UUID, actor: Actor) -> StockView:
    """Return the stock of one product; raises StockNotFound."""
    actor.require_admin()
    stock = session.get(Stock, product_id)
    if stock is None:
        raise StockNotFound
    return StockView.model_validate(stock)


def list_movements(session: Session, product_id: UUID, wanted: PageRequest, actor: Actor) -> Json[Page[MovementView]]:
    """Return a page of MovementView, the latest entry first; raises StockNotFound."""
    get_stock(session, product_id, actor)
    entries = select(Movement).where(Movement.product_id == product_id)
    rows, cursor = fetch_page(session, entries, keys=[Movement.entry], limit=wanted.limit, cursor=wanted.cursor)
    return page_of([MovementView.model_validate(row) for row in rows], cursor)


def find_replica(session: Session, product_id: UUID) -> ProductReplica | None:
    """Return the replica of a product, None if there is none yet."""
    return session.get(ProductReplica, product_id)


def lock_replica(session: Session, product_id: UUID) -> ProductReplica | None:
    """Return the current replica of a product; its sku cannot change until the transaction ends."""
    replica = select(ProductReplica).where(ProductReplica.id == product_id).with_for_update(read=True)
    return session.scalars(replica.execution_options(populate_existing=True)).one_or_none()


def lock_reservations(session: Session, order_ids: Iterable[UUID]) -> dict[UUID, Status]:
    """Return the status of each order's reservation. An order without one is locked too, but is not in the result."""
    wanted = sorted(set(order_ids))
    # A row that does not exist yet cannot be locked, so the order's id is: else `order.created` and `order.cancelled`
    # of one order, handled at the same time, would both find no row. Two orders with the same key only wait longer.
    keys = sorted(int.from_bytes(order_id.bytes[-8:], signed=True) for order_id in wanted)
    session.execute(_LOCK_KEYS, {"keys": keys})
    found = session.execute(
        select(Reservation.order_id, Reservation.status)
        .where(Reservation.order_id.in_(wanted))
        .order_by(Reservation.order_id)
        .with_for_update()
    )
    return {order_id: Status(status) for order_id, status in found}


def lines_of(session: Session, order_ids: Iterable[UUID]) -> dict[UUID, dict[UUID, int]]:
    """Return the units per product of each order's reservation."""
    found = session.execute(
        select(ReservationLine.order_id, ReservationLine.product_id, ReservationLine.quantity).where(
            ReservationLine.order_id.in_(set(order_ids))
        )
    )
    lines: dict[UUID, dict[UUID, int]] = {}
    for order_id, product_id, quantity in found:
        lines.setdefault(order_id, {})[product_id] = quantity
    return lines


class LockedStock(NamedTuple):
    """What a change of stock needs of the locked stock record of a product."""

    balance: Balance
    sku: str
    threshold: Threshold


def lock_stock(session: Session, product_ids: Iterable[UUID]) -> Mapping[UUID, LockedStock]:
    """Return the stock of each product that has a stock record."""
    found = session.execute(
        select(Stock.product_id, Stock.on_hand, Stock.reserved, Stock.product_sku, Stock.low_stock, Stock.is_low)
        .where(Stock.product_id.in_(set(product_ids)))
        .order_by(Stock.product_id)
        .with_for_update()
    )
    return {
        product_id: LockedStock(Balance(on_hand, reserved), sku, Threshold(low_stock, is_low))
        for product_id, on_hand, reserved, sku, low_stock, is_low in found
    }
