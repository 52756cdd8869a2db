"""What changes orders. Every change happens under the order's row lock and asks saga.py what it leads to."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select, text, update
from sqlalchemy.orm import Session

from contracts.base import Actor, Cause, Event, Publish, Received
from contracts.errors import InvalidState
from contracts.ids import new_id
from contracts.inventory import StockReleased
from contracts.orders import (
    CancelReason,
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderDelivered,
    OrderNotFound,
    OrderShipped,
    OrderStatus,
    OrderView,
)
from extensions.storage.bulk import insert_rows, update_rows
from orders import saga
from orders.models import Base, Order
from orders.pricing import PricedOrder
from orders.saga import Command, Saga

EXPIRE_BATCH = 200
_CHANGEABLE = ("id", "status", "cancel_reason", "stock_status", "payment_status", "version")


@dataclass(frozen=True, slots=True)
class NewOrder:
    """What an order is to hold, whose it is, and the request that asks for it; without one, what is being done now."""

    priced: PricedOrder
    user_id: UUID
    cause: Cause | None = None


@dataclass(slots=True)
class LockedOrder:
    """What an order's row says, for as long as this transaction holds it; `_write` stores what has changed of it."""

    id: UUID
    user_id: UUID
    total_amount: Decimal
    currency: str
    status: str
    cancel_reason: str | None
    stock_status: str
    payment_status: str
    version: int


_ORDERS, _TIMELINE = Base.metadata.tables["orders"], Base.metadata.tables["timeline"]
_BEGINNING: dict[str, Any] = {
    "status": OrderStatus.CREATED,
    "stock_status": "PENDING",
    "payment_status": "PENDING",
    "version": 1,
}
# Orders, their lines and the beginnings of their timelines: one round trip, since this is what the shop does most.
# The deadline is by the database's clock, for the timer asks the same one.
_PLACE = text(
    """
    WITH placed AS (
        INSERT INTO orders (id, user_id, total_amount, status, currency, stock_status, payment_status, version,
                            deadline_at)
        SELECT id, user_id, total_amount, :status, :currency, :stock_status, :payment_status, :version,
               clock_timestamp() + :deadline
        FROM unnest(CAST(:id AS uuid[]), CAST(:user_id AS uuid[]), CAST(:total_amount AS numeric[]))
             AS asked (id, user_id, total_amount)
        RETURNING id, created_at, updated_at
    ), lines AS (
        INSERT INTO order_items (order_id, line, product_id, product_sku, quantity, price_snapshot)
        SELECT * FROM unnest(CAST(:order_id AS uuid[]), CAST(:line AS integer[]), CAST(:product_id AS uuid[]),
                             CAST(:product_sku AS text[]), CAST(:quantity AS integer[]),
                             CAST(:price_snapshot AS numeric[]))
    ), noted AS (
        INSERT INTO timeline (order_id, event, event_id, service, data)
        SELECT order_id, :event, event_id, :service, data
        FROM unnest(CAST(:id AS uuid[]), CAST(:event_id AS uuid[]), CAST(:data AS jsonb[]))
             AS created (order_id, event_id, data)
    )
    SELECT id, created_at, updated_at FROM placed
    """
)
_COLUMNS = select(*(getattr(Order, name) for name in LockedOrder.__slots__))


def create_orders(
    session: Session, orders: Sequence[NewOrder], currency: str, deadline: timedelta, publish: Publish
) -> list[OrderView]:
    """Store orders and announce each; the answer of inventory and payments decides it within `deadline`."""
    announcements = [
        OrderCreated(
            order_id=new_id(),
            user_id=order.user_id,
            total_amount=order.priced.total,
            currency=currency,
            items=order.priced.lines,
        )
        for order in orders
    ]
    entries = [
        _entry(created, publish(created, order.cause)) for created, order in zip(announcements, orders, strict=True)
    ]
    lines = [
        {"order_id": created.order_id, "line": number, **dict(line)}
        for created in announcements
        for number, line in enumerate(created.items, start=1)
    ]
    values = {
        **_BEGINNING,
        "currency": currency,
        "deadline": deadline,
        "id": [created.order_id for created in announcements],
        "user_id": [created.user_id for created in announcements],
        "total_amount": [created.total_amount for created in announcements],
        **{name: [line[name] for line in lines] for name in lines[0]},
        "event": OrderCreated.event_type,
        "service": OrderCreated.producer,
        "event_id": [entry["event_id"] for entry in entries],
        "data": [json.dumps(entry["data"]) for entry in entries],
    }
    placed = {order_id: times for order_id, *times in session.execute(_PLACE, values)}
    return [_created_view(created, *placed[created.order_id]) for created in announcements]


def apply_replies(session: Session, answers: Sequence[Received[Any]], publish: Publish) -> list[LockedOrder]:
    """Record what inventory and payments said about their orders, and decide the orders that this settles.

    Returns the orders that changed. Raises OrderNotFound where an answer is about no order of ours.
    """
    orders = _lock(session, {answer.event.order_id for answer in answers})
    entries: list[dict[str, Any]] = []
    changed: dict[UUID, LockedOrder] = {}
    for answer in answers:
        event = answer.event
        order = orders.get(event.order_id)
        if order is None:
            raise OrderNotFound(f"{event.event_type} speaks of order {event.order_id}, which does not exist.")
        entries.append(_entry(event, answer.message_id))
        returned = isinstance(event, StockReleased) and event.returned
        after = saga.apply_reply(_saga_of(order), event.event_type, returned=returned)
        if _apply(order, after, entries, lambda announcement: publish(announcement, cause=answer)):  # noqa: B023
            changed[order.id] = order
    _write(session, changed.values())
    _record(session, entries)
    return list(changed.values())


def command_order(session: Session, order_id: UUID, command: Command, publish: Publish) -> LockedOrder:
    """Cancel, ship or deliver an order. Raises OrderNotFound, and InvalidState where it is not possible (any more)."""
    order = _lock(session, {order_id}).get(order_id)
    if order is None:
        raise OrderNotFound
    after = saga.apply_command(_saga_of(order), command)
    if after is None:
        verb = "cancel" if command in {Command.CANCEL_BY_USER, Command.CANCEL_BY_ADMIN} else command
        raise InvalidState(f"This order is {order.status}: it is not possible to {verb} it.")
    entries: list[dict[str, Any]] = []
    _apply(order, after, entries, publish)
    _write(session, [order])
    _record(session, entries)
    return order


def cancel_command(session: Session, order_id: UUID, actor: Actor) -> Command:
    """Return whose cancellation this is: the owner's own, or the shop's. Raises OrderNotFound for strangers."""
    owner = session.scalar(select(Order.user_id).where(Order.id == order_id))
    if owner is None or not actor.may_see(owner):
        raise OrderNotFound
    return Command.CANCEL_BY_USER if actor.user_id == owner else Command.CANCEL_BY_ADMIN


def expire_orders(session: Session, deadline: timedelta, publish: Publish) -> list[LockedOrder]:
    """Cancel orders that were not decided within their deadline; returns them, EXPIRE_BATCH at most."""
    _redate(session, deadline)
    overdue = _read(
        session,
        # The statement's time is one for all rows, so that the index finds those that are due; the clock's is not.
        _COLUMNS.where(Order.status == OrderStatus.CREATED, Order.deadline_at <= func.statement_timestamp())
        .order_by(Order.deadline_at)
        .limit(EXPIRE_BATCH)
        # One that is locked is being decided at this moment.
        .with_for_update(skip_locked=True),
    )
    entries: list[dict[str, Any]] = []
    for order in overdue:
        after = saga.apply_command(_saga_of(order), Command.EXPIRE)
        if after is not None:
            _apply(order, after, entries, publish)
    _write(session, overdue)
    _record(session, entries)
    return overdue


def _redate(session: Session, deadline: timedelta) -> None:
    """Give orders a deadline anew that is further off than any can be: the clock has been set back since."""
    latest = func.statement_timestamp() + deadline
    ahead = select(Order.id).where(Order.status == OrderStatus.CREATED, Order.deadline_at > latest)
    session.execute(
        update(Order)
        .where(Order.id.in_(ahead.with_for_update(skip_locked=True)))
        .values(deadline_at=latest)
        .execution_options(synchronize_session=False)
    )


def _lock(session: Session, order_ids: set[UUID]) -> dict[UUID, LockedOrder]:
    """Lock orders in the order of their ids, so that two batches cannot deadlock."""
    statement = _COLUMNS.where(Order.id.in_(order_ids)).order_by(Order.id).with_for_update()
    return {order.id: order for order in _read(session, statement)}


def _read(session: Session, statement: Select[Any]) -> list[LockedOrder]:
    return [LockedOrder(*row) for row in session.execute(statement)]


def _write(session: Session, orders: Iterable[LockedOrder]) -> None:
    update_rows(session, _ORDERS, [{name: getattr(order, name) for name in _CHANGEABLE} for order in orders])


def _created_view(created: OrderCreated, created_at: datetime, updated_at: datetime) -> OrderView:
    """Return an order as it is right after its placing."""
    return OrderView(
        **_BEGINNING,
        id=created.order_id,
        user_id=created.user_id,
        total_amount=created.total_amount,
        currency=created.currency,
        items=[{**dict(line), "line_total": line.price_snapshot * line.quantity} for line in created.items],
        cancel_reason=None,
        created_at=created_at,
        updated_at=updated_at,
    )


def _saga_of(order: LockedOrder) -> Saga:
    reason = None if order.cancel_reason is None else CancelReason(order.cancel_reason)
    return Saga(OrderStatus(order.status), order.stock_status, order.payment_status, reason)


def _apply(order: LockedOrder, after: Saga, entries: list[dict[str, Any]], publish: Callable[[Event], UUID]) -> bool:
    """Enter a saga's new state into its order, and announce a new status. Tells whether anything changed."""
    before = _saga_of(order)
    if after == before:
        return False
    order.status, order.stock_status, order.payment_status = after.status, after.stock, after.payment
    order.cancel_reason = after.cancel_reason
    order.version += 1
    if after.status is not before.status:
        announcement = _announcement(order, after)
        entries.append(_entry(announcement, publish(announcement)))
    return True


def _announcement(order: LockedOrder, after: Saga) -> Event:
    """Return the event that says which status an order now has."""
    if after.status is OrderStatus.CONFIRMED:
        return OrderConfirmed(
            order_id=order.id, user_id=order.user_id, total_amount=order.total_amount, currency=order.currency
        )
    if after.status is OrderStatus.CANCELLED and after.cancel_reason is not None:
        return OrderCancelled(order_id=order.id, user_id=order.user_id, reason=after.cancel_reason)
    kind = OrderShipped if after.status is OrderStatus.SHIPPED else OrderDelivered
    return kind(order_id=order.id, user_id=order.user_id)


def _entry(event: Event, event_id: UUID) -> dict[str, Any]:
    """Return the timeline row of an event."""
    return {
        "order_id": UUID(event.correlation_id),
        "event": event.event_type,
        "event_id": event_id,
        "service": event.producer,
        "data": event.model_dump(mode="json"),
    }


def _record(session: Session, entries: Sequence[dict[str, Any]]) -> None:
    # An event that the inbox has long forgotten may come again; the timeline never forgets.
    insert_rows(session, _TIMELINE, entries, on_conflict="DO NOTHING")
