"""The queries of the orders service."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, selectinload

from contracts.base import Actor, Json, Page, PageRequest, page_of
from contracts.errors import PermissionDenied
from contracts.orders import (
    ExportedOrder,
    OrderCancelled,
    OrderFilter,
    OrderNotFound,
    OrderStatus,
    OrderView,
    PositionedEntry,
    SagaFilter,
    SagaView,
    TimelineEntry,
    TimelinePositions,
    TimelinesView,
    TimelineView,
)
from extensions.storage.pagination import equal_in_order, fetch_page
from orders import saga
from orders.admission import Waiting
from orders.models import UNDECIDED, UNSETTLED, Order, ProductReplica, TimelineEvent

# The most events that get_timelines returns.
MAX_ENTRIES = 1000


def get_order(session: Session, order_id: UUID) -> OrderView:
    """Return an order of any user; raises OrderNotFound."""
    order = session.get(Order, order_id, options=[selectinload(Order.items)])
    if order is None:
        raise OrderNotFound
    return view(order)


def view(order: Order) -> OrderView:
    """Return the view of an order whose items are loaded."""
    return OrderView.model_validate(order)


def require_visible(session: Session, order_id: UUID, actor: Actor) -> None:
    """Raise OrderNotFound unless the order exists and the actor may see it."""
    owner = session.scalar(select(Order.user_id).where(Order.id == order_id))
    if owner is None or not actor.may_see(owner):
        raise OrderNotFound


def list_orders(session: Session, wanted: OrderFilter, actor: Actor) -> Json[Page[OrderView]]:
    """Return a page of the actor's orders, newest first; of all orders for an administrator."""
    if wanted.user_id is not None and not actor.may_see(wanted.user_id):
        raise PermissionDenied("Only an administrator may list the orders of someone else.")
    owner = wanted.user_id if actor.is_admin else actor.user_id
    statement = select(Order).options(selectinload(Order.items))
    if owner is not None:
        statement = statement.where(Order.user_id == owner)
    # All of these keys sort by time, and each has an index that also serves the filter.
    keys: list[InstrumentedAttribute[Any]] = [Order.id]
    if wanted.created_after is not None or wanted.created_before is not None:
        keys = [Order.created_at, Order.id]
    elif wanted.status is not None and owner is None:
        keys = [Order.status, Order.id]
        statement = statement.where(equal_in_order(Order.status, wanted.status))
    if wanted.status is not None and keys[0] is not Order.status:
        statement = statement.where(Order.status == wanted.status)
    if wanted.created_after is not None:
        statement = statement.where(Order.created_at > wanted.created_after)
    if wanted.created_before is not None:
        statement = statement.where(Order.created_at < wanted.created_before)
    orders, next_cursor = fetch_page(session, statement, keys=keys, limit=wanted.limit, cursor=wanted.cursor)
    return page_of([view(order) for order in orders], next_cursor)


def export_orders(session: Session, user_id: UUID, page: PageRequest, actor: Actor) -> Json[Page[ExportedOrder]]:
    """Return a page of all that is kept about a user's orders, newest first. Raises PermissionDenied."""
    if not actor.may_see(user_id):
        raise PermissionDenied
    mine = select(Order).options(selectinload(Order.items)).where(Order.user_id == user_id)
    orders, cursor = fetch_page(session, mine, keys=[Order.id], limit=page.limit, cursor=page.cursor)
    timelines: dict[UUID, list[TimelineEntry]] = {order.id: [] for order in orders}
    notes = {order.id: order.cancel_note for order in orders}
    events = select(TimelineEvent).where(TimelineEvent.order_id.in_(timelines)).order_by(TimelineEvent.id)
    for event in session.scalars(events):
        timelines[event.order_id].append(TimelineEntry(**_shown(event, notes)))
    exported = [
        ExportedOrder.model_validate(
            {**dict(view(order)), "payment_method": order.payment_method, "timeline": timelines[order.id]}
        )
        for order in orders
    ]
    return page_of(exported, cursor)


def get_timeline(session: Session, order_id: UUID, actor: Actor) -> TimelineView:
    """Return every event of the order's saga, oldest first."""
    require_visible(session, order_id, actor)
    events = select(TimelineEvent).where(TimelineEvent.order_id == order_id).order_by(TimelineEvent.id)
    found = session.scalars(events).all()
    notes = _notes(session, found)
    return TimelineView(items=tuple(TimelineEntry(**_shown(event, notes)) for event in found))


def get_timelines(session: Session, wanted: TimelinePositions) -> TimelinesView:
    """Return what the timelines of some orders have beyond the known events, at most MAX_ENTRIES events.

    The position of an event is its number in the timeline of its order. It never changes: an order's row is locked
    while an event is recorded, so ids that are committed later are higher, and no event is deleted.
    """
    known = {each.order_id: each.known for each in wanted.orders}
    position = func.row_number().over(partition_by=TimelineEvent.order_id, order_by=TimelineEvent.id).label("position")
    numbered = select(TimelineEvent, position).where(TimelineEvent.order_id.in_(known)).subquery()
    entry, passed = aliased(TimelineEvent, numbered), case(known, value=numbered.c.order_id)
    rows = session.execute(
        select(entry, numbered.c.position)
        .where(numbered.c.position > passed)
        .order_by(numbered.c.order_id, numbered.c.id)
        .limit(MAX_ENTRIES)
    ).all()
    notes = _notes(session, (each for each, _ in rows))
    items = [PositionedEntry(order_id=each.order_id, position=number, **_shown(each, notes)) for each, number in rows]
    return TimelinesView(items=tuple(items), is_complete=len(rows) < MAX_ENTRIES)


def _notes(session: Session, events: Iterable[TimelineEvent]) -> Mapping[UUID, str | None]:
    """Return the notes of the orders whose cancellation is among these events."""
    cancelled = {event.order_id for event in events if event.event == OrderCancelled.event_type}
    if not cancelled:
        return {}
    return {
        row.id: row.cancel_note
        for row in session.execute(select(Order.id, Order.cancel_note).where(Order.id.in_(cancelled)))
    }


def _shown(event: TimelineEvent, notes: Mapping[UUID, str | None]) -> dict[str, Any]:
    """Return the fields of a TimelineEntry. A cancellation has the note of its order, if there is one."""
    fields = {name: getattr(event, name) for name in TimelineEntry.model_fields}
    note = notes.get(event.order_id) if event.event == OrderCancelled.event_type else None
    return fields if note is None else fields | {"data": event.data | {"note": note}}


def count_waiting(session: Session, deadline: timedelta, late_after: timedelta) -> Waiting:
    """Return how many orders are undecided, and how many of them have been undecided for longer than `late_after`."""
    late = Order.deadline_at < func.clock_timestamp() + (deadline - late_after)
    counts = select(func.count(), func.count().filter(late)).select_from(Order).where(UNDECIDED)
    return Waiting(*session.execute(counts).one())


def get_replicas(session: Session, product_ids: Sequence[str], max_age: timedelta) -> Sequence[ProductReplica]:
    """Return the replicas of these products that were confirmed within `max_age`."""
    ids = [UUID(product_id) for product_id in product_ids]
    fresh = ProductReplica.confirmed_at > func.clock_timestamp() - max_age
    return session.scalars(select(ProductReplica).where(ProductReplica.id.in_(ids), fresh)).all()


def list_sagas(session: Session, wanted: SagaFilter, grace: timedelta) -> Json[Page[SagaView]]:
    """Return unsettled orders; with `wanted.stuck`, only those that have not changed for longer than `grace`."""
    statement = select(Order).where(UNSETTLED)
    if wanted.stuck:
        statement = statement.where(Order.updated_at < func.clock_timestamp() - grace)
    orders, next_cursor = fetch_page(session, statement, keys=[Order.id], limit=wanted.limit, cursor=wanted.cursor)
    return page_of([_saga_view(order) for order in orders], next_cursor)


def _saga_view(order: Order) -> SagaView:
    state = saga.Saga(OrderStatus(order.status), order.stock_status, order.payment_status)
    return SagaView(
        id=order.id,
        user_id=order.user_id,
        status=state.status,
        stock_status=order.stock_status,
        payment_status=order.payment_status,
        awaits=tuple(saga.awaits(state)),
        since=order.updated_at,
        created_at=order.created_at,
        deadline_at=order.deadline_at,
    )
