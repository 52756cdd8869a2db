"""The use cases of the orders service. Each change takes the order's row lock and lets saga.py decide the new state."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from contracts.addresses import ShippingAddress
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
    ShipOrder,
)
from contracts.payments import DEFAULT_PAYMENT_METHOD
from extensions.storage.bulk import insert_rows, update_rows
from orders import saga
from orders.models import ORDER_STATE, PLACE_ORDERS, UNDECIDED, Base, LockedOrder, Order
from orders.pricing import PricedOrder
from orders.saga import Command, Saga

EXPIRE_BATCH = 200
_CHANGEABLE = ("id", "status", "cancel_reason", "stock_status", "payment_status", "version")


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order to store. `cause` is the request that placed it; None means the current one.

    `prices_confirmed_at` is None if catalog was called for this order; else the time of its last confirmation.
    """

    priced: PricedOrder
    user_id: UUID
    cause: Cause | None = None
    payment_method: str = DEFAULT_PAYMENT_METHOD
    prices_confirmed_at: datetime | None = None
    shipping_address: ShippingAddress | None = None


_ORDERS, _TIMELINE = Base.metadata.tables["orders"], Base.metadata.tables["timeline"]
_INITIAL_STATE: dict[str, Any] = {
    "status": OrderStatus.CREATED,
    "stock_status": "PENDING",
    "payment_status": "PENDING",
    "version": 1,
}


def create_orders(
    session: Session, orders: Sequence[NewOrder], currency: str, deadline: timedelta, publish: Publish
) -> list[OrderView]:
    """Store orders, and publish OrderCreated for each. An order that is not decided within `deadline` is cancelled."""
    events = [
        OrderCreated(
            order_id=new_id(),
            user_id=order.user_id,
            total_amount=order.priced.total,
            currency=currency,
            items=order.priced.lines,
            payment_method=order.payment_method,
        )
        for order in orders
    ]
    entries = [_entry(created, publish(created, order.cause)) for created, order in zip(events, orders, strict=True)]
    for entry, order in zip(entries, orders, strict=True):
        entry["data"] |= _price_source(order)
    lines = [
        {"order_id": created.order_id, "line": number, **dict(line)}
        for created in events
        for number, line in enumerate(created.items, start=1)
    ]
    values = {
        **_INITIAL_STATE,
        "currency": currency,
        "deadline": deadline,
        "id": [created.order_id for created in events],
        "user_id": [created.user_id for created in events],
        "total_amount": [created.total_amount for created in events],
        "payment_method": [created.payment_method for created in events],
        "shipping_address": [_json_of(order.shipping_address) for order in orders],
        **{name: [line[name] for line in lines] for name in lines[0]},
        "event": OrderCreated.event_type,
        "service": OrderCreated.producer,
        "event_id": [entry["event_id"] for entry in entries],
        "data": [json.dumps(entry["data"]) for entry in entries],
    }
    placed = {order_id: times for order_id, *times in session.execute(PLACE_ORDERS, values)}
    return [
        _created_view(created, order.shipping_address, *placed[created.order_id])
        for created, order in zip(events, orders, strict=True)
    ]


def apply_replies(session: Session, replies: Sequence[Received[Any]], publish: Publish) -> list[LockedOrder]:
    """Record replies of inventory and payments in the timeline, and confirm or cancel the orders that they decide.

    Returns the orders that changed. Raises OrderNotFound for a reply about an unknown order.
    """
    orders = _lock(session, {reply.event.order_id for reply in replies})
    entries: list[dict[str, Any]] = []
    changed: dict[UUID, LockedOrder] = {}
    for reply in replies:
        event = reply.event
        order = orders.get(event.order_id)
        if order is None:
            raise OrderNotFound(f"{event.event_type} names the order {event.order_id}, which does not exist.")
        entries.append(_entry(event, reply.message_id))
        returned = isinstance(event, StockReleased) and event.returned
        after = saga.apply_reply(_saga_of(order), type(event), returned=returned)
        if _apply(order, after, entries, lambda caused: publish(caused, cause=reply)):  # noqa: B023
            changed[order.id] = order
    _write(session, changed.values())
    _record(session, entries)
    return list(changed.values())


def command_order(
    session: Session,
    order_id: UUID,
    command: Command,
    publish: Publish,
    shipment: ShipOrder | None = None,
    note: str | None = None,
) -> LockedOrder:
    """Cancel, ship or deliver an order. Raises OrderNotFound, and InvalidState if its status does not allow that.

    `shipment` is stored with an order that is shipped, `note` with one that is cancelled.
    """
    order = _lock(session, {order_id}).get(order_id)
    if order is None:
        raise OrderNotFound
    after = saga.apply_command(_saga_of(order), command)
    if after is None:
        verb = "cancel" if command in {Command.CANCEL_BY_USER, Command.CANCEL_BY_ADMIN} else command
        raise InvalidState(f"This order is {order.status}: it is not possible to {verb} it.")
    entries: list[dict[str, Any]] = []
    _apply(order, after, entries, publish, shipment)
    _write(session, [order], dict(shipment or {}) | ({} if note is None else {"cancel_note": note}))
    _record(session, entries)
    return order


def cancel_command(session: Session, order_id: UUID, actor: Actor) -> Command:
    """Return the command for a cancellation by the owner or by an administrator; OrderNotFound for other users."""
    owner = session.scalar(select(Order.user_id).where(Order.id == order_id))
    if owner is None or not actor.may_see(owner):
        raise OrderNotFound
    return Command.CANCEL_BY_USER if actor.user_id == owner else Command.CANCEL_BY_ADMIN


def lock_overdue(
    session: Session, *, only: Sequence[UUID] | None = None, without: Sequence[UUID] = ()
) -> list[LockedOrder]:
    """Lock and return orders that were not decided within their deadline, at most EXPIRE_BATCH.

    A locked order is left out: another transaction decides it.
    """
    # statement_timestamp() is constant during the statement, so the index can be used; clock_timestamp() is not.
    overdue = _selected(ORDER_STATE.where(UNDECIDED, Order.deadline_at <= func.statement_timestamp()), only, without)
    return _read(session, overdue.order_by(Order.deadline_at).limit(EXPIRE_BATCH).with_for_update(skip_locked=True))


def expire_orders(session: Session, overdue: Sequence[LockedOrder], publish: Publish) -> None:
    """Cancel orders that `lock_overdue` returned."""
    _command_all(session, overdue, Command.EXPIRE, publish)


def cancel_orders_of_users(
    session: Session, user_ids: Sequence[UUID], limit: int, publish: Publish
) -> list[LockedOrder]:
    """Cancel the open orders of users who have deleted their accounts, at most `limit`; returns them."""
    mine = ORDER_STATE.where(
        Order.user_id.in_(user_ids), Order.status.in_([OrderStatus.CREATED, OrderStatus.CONFIRMED])
    )
    orders = _read(session, mine.order_by(Order.id).limit(limit).with_for_update())
    _command_all(session, orders, Command.CANCEL_BY_USER, publish)
    return orders


def lock_ahead(
    session: Session, deadline: timedelta, *, only: Sequence[UUID] | None = None, without: Sequence[UUID] = ()
) -> list[LockedOrder]:
    """Lock and return orders whose deadline lies too far ahead: the clock was set back after it was computed."""
    ahead = ORDER_STATE.where(UNDECIDED, Order.deadline_at > func.statement_timestamp() + deadline)
    return _read(session, _selected(ahead, only, without).with_for_update(skip_locked=True))


def correct_deadlines(session: Session, ahead: Sequence[LockedOrder], deadline: timedelta) -> None:
    """Reset the deadlines of orders that `lock_ahead` returned."""
    session.execute(
        update(Order)
        .where(Order.id.in_([order.id for order in ahead]))
        .values(deadline_at=func.statement_timestamp() + deadline)
        .execution_options(synchronize_session=False)
    )


def _command_all(session: Session, orders: Sequence[LockedOrder], command: Command, publish: Publish) -> None:
    """Apply `command` to locked orders; those whose status does not allow it stay as they are."""
    entries: list[dict[str, Any]] = []
    for order in orders:
        after = saga.apply_command(_saga_of(order), command)
        if after is not None:
            _apply(order, after, entries, publish)
    _write(session, orders)
    _record(session, entries)


def _selected(orders: Select[Any], only: Sequence[UUID] | None, without: Sequence[UUID]) -> Select[Any]:
    if only is not None:
        orders = orders.where(Order.id.in_(only))
    return orders.where(Order.id.not_in(without)) if without else orders


def _lock(session: Session, order_ids: set[UUID]) -> dict[UUID, LockedOrder]:
    """Lock orders sorted by id, so that two batches cannot deadlock."""
    statement = ORDER_STATE.where(Order.id.in_(order_ids)).order_by(Order.id).with_for_update()
    return {order.id: order for order in _read(session, statement)}


def _read(session: Session, statement: Select[Any]) -> list[LockedOrder]:
    return [LockedOrder(*row) for row in session.execute(statement)]


def _write(session: Session, orders: Iterable[LockedOrder], more: Mapping[str, Any] | None = None) -> None:
    """Write what has changed. `more` are further columns with the same values for all of the orders."""
    rows = [{name: getattr(order, name) for name in _CHANGEABLE} | dict(more or {}) for order in orders]
    update_rows(session, _ORDERS, rows)


def _json_of(address: ShippingAddress | None) -> str | None:
    return None if address is None else address.model_dump_json()


def _created_view(
    created: OrderCreated, address: ShippingAddress | None, created_at: datetime, updated_at: datetime
) -> OrderView:
    """Return the view of an order that was just placed."""
    return OrderView(
        **_INITIAL_STATE,
        id=created.order_id,
        user_id=created.user_id,
        total_amount=created.total_amount,
        currency=created.currency,
        items=[{**dict(line), "line_total": line.price_snapshot * line.quantity} for line in created.items],
        cancel_reason=None,
        shipping_address=address,
        carrier=None,
        tracking_number=None,
        created_at=created_at,
        updated_at=updated_at,
    )


def _price_source(order: NewOrder) -> dict[str, Any]:
    """Return what the timeline says about the prices of an order, if they are from replicas."""
    if order.prices_confirmed_at is None:
        return {}
    return {"prices_from": "replica", "prices_confirmed_at": order.prices_confirmed_at.astimezone(UTC).isoformat()}


def _saga_of(order: LockedOrder) -> Saga:
    reason = None if order.cancel_reason is None else CancelReason(order.cancel_reason)
    return Saga(OrderStatus(order.status), order.stock_status, order.payment_status, reason)


def _apply(
    order: LockedOrder,
    after: Saga,
    entries: list[dict[str, Any]],
    publish: Callable[[Event], UUID],
    shipment: ShipOrder | None = None,
) -> bool:
    """Copy the new state into the order, and publish the event of a new status. Returns whether anything changed."""
    before = _saga_of(order)
    if after == before:
        return False
    order.status, order.stock_status, order.payment_status = after.status, after.stock, after.payment
    order.cancel_reason = after.cancel_reason
    order.version += 1
    if after.status is not before.status:
        event = _status_event(order, after)
        if shipment is not None:
            event = event.model_copy(update=dict(shipment))
        entries.append(_entry(event, publish(event)))
    return True


def _status_event(order: LockedOrder, after: Saga) -> Event:
    """Return the event that announces the new status."""
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
        "data": event.model_dump(mode="json", exclude_none=True),
    }


def _record(session: Session, entries: Sequence[dict[str, Any]]) -> None:
    # An event may arrive again after its inbox row has expired; the timeline keeps event ids without limit.
    insert_rows(session, _TIMELINE, entries, on_conflict="DO NOTHING")
