"""The queries of payments. The functions named lock_* also lock the rows until the transaction ends.

All of them lock payments in the order of their order ids, which prevents deadlocks.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from contracts.base import Actor, Json, Page, page_of
from contracts.payments import PaymentFilter, PaymentNotFound, PaymentView
from extensions.storage.pagination import equal_in_order, fetch_page
from payments.models import Payment
from payments.rules import State

_LOCK_KEYS = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


class Pending(NamedTuple):
    """A payment for which the provider has to be asked."""

    payment_id: UUID
    order_id: UUID
    amount: Decimal
    currency: str


def list_payments(session: Session, wanted: PaymentFilter, actor: Actor) -> Json[Page[PaymentView]]:
    """Return a page of PaymentView, newest first: the actor's own, or all for an administrator."""
    payments = _visible_to(actor)
    if wanted.order_id is not None:
        payments = payments.where(Payment.order_id == wanted.order_id)
    keys: list[InstrumentedAttribute[Any]] = [Payment.id]
    if wanted.status is not None and actor.is_admin:
        keys = [Payment.status, Payment.id]
        payments = payments.where(equal_in_order(Payment.status, wanted.status))
    elif wanted.status is not None:
        payments = payments.where(Payment.status == wanted.status)
    rows, cursor = fetch_page(session, payments, keys=keys, limit=wanted.limit, cursor=wanted.cursor)
    return page_of([PaymentView.model_validate(row) for row in rows], cursor)


def get_payment(session: Session, payment_id: UUID, actor: Actor) -> PaymentView:
    """Return one payment; raises PaymentNotFound, also for someone else's."""
    return _one(session, _visible_to(actor).where(Payment.id == payment_id))


def get_payment_of_order(session: Session, order_id: UUID, actor: Actor) -> PaymentView:
    """Return the payment of an order; raises PaymentNotFound, also for someone else's."""
    return _one(session, _visible_to(actor).where(Payment.order_id == order_id))


def pending_payments(session: Session, after: UUID | None, limit: int) -> Sequence[Pending]:
    """Return the oldest payments that wait for the provider and have an id greater than `after`."""
    waiting = select(Payment).where(Payment.status == State.PENDING).order_by(Payment.id).limit(limit)
    if after is not None:
        waiting = waiting.where(Payment.id > after)
    columns = waiting.with_only_columns(Payment.id, Payment.order_id, Payment.amount, Payment.currency)
    return [Pending._make(row) for row in session.execute(columns)]


def lock_payments_of_orders(session: Session, order_ids: Iterable[UUID]) -> dict[UUID, Payment]:
    """Return each order's payment or tombstone. An order that has neither is locked too, but is not in the result."""
    wanted = sorted(set(order_ids))
    # A row that does not exist yet cannot be locked, so the order's id is: else `order.created` and `order.cancelled`
    # of one order, handled at the same time, would both find no row. Two orders with the same key only wait longer.
    keys = sorted(int.from_bytes(order_id.bytes[-8:], signed=True) for order_id in wanted)
    session.execute(_LOCK_KEYS, {"keys": keys})
    payments = _locked(session, select(Payment).where(Payment.order_id.in_(wanted)))
    return {payment.order_id: payment for payment in payments}


def lock_payments(session: Session, payment_ids: Iterable[UUID]) -> Sequence[Payment]:
    """Return the current state of these payments."""
    return _locked(session, select(Payment).where(Payment.id.in_(set(payment_ids))))


def _locked(session: Session, payments: Select[Payment]) -> Sequence[Payment]:
    statement = payments.order_by(Payment.order_id).with_for_update()
    return session.scalars(statement.execution_options(populate_existing=True)).all()


def _visible_to(actor: Actor) -> Select[Payment]:
    """Payments that the actor may see; tombstones are internal."""
    payments = select(Payment).where(Payment.status != State.CANCELLED_BEFORE)
    return payments if actor.is_admin else payments.where(Payment.user_id == actor.user_id)


def _one(session: Session, payment: Select[Payment]) -> PaymentView:
    found = session.scalars(payment).one_or_none()
    if found is None:
        raise PaymentNotFound
    return PaymentView.model_validate(found)
