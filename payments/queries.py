"""The queries of the payments service. The functions named lock_* also lock the rows until the transaction ends.

All of them lock the rows sorted by order id. Transactions that lock in the same sequence cannot deadlock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Select, Table, Text, cast, exists, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session

from contracts.base import Actor, Json, Page, PageRequest, page_of
from contracts.errors import PermissionDenied
from contracts.ids import parse_id
from contracts.payments import (
    AttemptOutcome,
    AttemptView,
    ExportedPayment,
    PaymentFilter,
    PaymentNotFound,
    PaymentView,
    ProviderCallView,
    RefundStatus,
    RefundView,
)
from extensions.storage.pagination import equal_in_order, fetch_page
from payments.models import REFUND_PENDING, Base, Payment, ProviderAttempt, Refund
from payments.provider import Call, Operation
from payments.rules import OPERATIONS, Kind, State, state_of

# If another session locks a payment for long, the batch fails after this time. Then its events are handled one by one,
# and only the event that needs this payment waits.
_LOCK_KEYS = text(
    "SET LOCAL lock_timeout = '500ms'; SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key"
)


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


def export_payments(session: Session, user_id: UUID, page: PageRequest, actor: Actor) -> Json[Page[ExportedPayment]]:
    """Return a page of all that is kept about a user's payments, newest first. Raises PermissionDenied."""
    if not actor.may_see(user_id):
        raise PermissionDenied
    mine = _visible_to(actor).where(Payment.user_id == user_id)
    rows, cursor = fetch_page(session, mine, keys=[Payment.id], limit=page.limit, cursor=page.cursor)
    return page_of([ExportedPayment.model_validate(row) for row in rows], cursor)


def get_payment(session: Session, payment_id: UUID, actor: Actor) -> PaymentView:
    """Return one payment. Raises PaymentNotFound, also if the payment is of another user."""
    return _one(session, _visible_to(actor).where(Payment.id == payment_id))


def get_payment_of_order(session: Session, order_id: UUID, actor: Actor) -> PaymentView:
    """Return the payment of an order. Raises PaymentNotFound, also if the payment is of another user."""
    return _one(session, _visible_to(actor).where(Payment.order_id == order_id))


def list_refunds(session: Session, payment_id: UUID, wanted: PageRequest, actor: Actor) -> Json[Page[RefundView]]:
    """Return a page of RefundView, the newest first. Raises PaymentNotFound."""
    payment = get_payment(session, payment_id, actor)
    refunds = select(Refund).where(Refund.payment_id == payment_id)
    rows, cursor = fetch_page(session, refunds, keys=[Refund.id], limit=wanted.limit, cursor=wanted.cursor)
    return page_of([refund_view(row, payment) for row in rows], cursor)


def refund_view(refund: Refund, payment: Payment | PaymentView) -> RefundView:
    """Return the view of a refund of this payment."""
    fields = {name: getattr(refund, name) for name in RefundView.model_fields if hasattr(refund, name)}
    return RefundView.model_validate(fields | {"order_id": payment.order_id, "currency": payment.currency})


def list_attempts(session: Session, payment_id: UUID, wanted: PageRequest, actor: Actor) -> Json[Page[AttemptView]]:
    """Return a page of AttemptView, the latest first. Raises PaymentNotFound."""
    get_payment(session, payment_id, actor)
    attempts = select(ProviderAttempt).where(ProviderAttempt.payment_id == payment_id)
    rows, cursor = fetch_page(session, attempts, keys=[ProviderAttempt.id], limit=wanted.limit, cursor=wanted.cursor)
    return page_of([AttemptView.model_validate(row) for row in rows], cursor)


def list_provider_calls(session: Session, wanted: PageRequest) -> Json[Page[ProviderCallView]]:
    """Return a page of the unfinished calls of the provider, the newest payment first."""
    items: Table = Base.work_items
    calls = select(*(items.c[name] for name in ProviderCallView.model_fields if name in items.c), items.c.key)
    if wanted.cursor is not None:
        calls = calls.where(items.c.key < str(parse_id("cursor", wanted.cursor)))
    rows = session.execute(calls.order_by(items.c.key.desc()).limit(wanted.limit + 1)).mappings().all()
    found = [ProviderCallView.model_validate({**row, "payment_id": row["key"]}) for row in rows[: wanted.limit]]
    return page_of(found, str(found[-1].payment_id) if len(rows) > wanted.limit else None)


def calls_of(session: Session, payment_ids: Iterable[UUID]) -> dict[UUID, Call]:
    """Return the call of the provider that each of these payments needs; a payment that needs none is left out.

    Locks nothing, and waits for no lock.
    """
    columns = select(
        Payment.id,
        Payment.order_id,
        Payment.status,
        Payment.capture_requested,
        Payment.cancel_requested,
        Payment.amount,
        Payment.refund_requested_amount,
        Payment.currency,
        Payment.payment_method,
        Payment.transaction_reference,
        literal_column(f"({REFUND_PENDING.text})", Boolean).label("is_refund_pending"),
    ).where(Payment.id.in_(set(payment_ids)))
    rows = {row.id: row for row in session.execute(columns)}
    operations = {row.id: OPERATIONS[state] for row in rows.values() if (state := _state_of(row)) in OPERATIONS}
    pending = _oldest_pending(session, [row.id for row in rows.values() if row.is_refund_pending])
    return {
        payment_id: _refund_call(rows[payment_id], pending.get(payment_id))
        if operation is Operation.REFUND
        else _call(operation, rows[payment_id])
        for payment_id, operation in operations.items()
    }


def _state_of(row: Any) -> State:
    return state_of(
        row.status,
        capture_requested=row.capture_requested,
        cancel_requested=row.cancel_requested,
        is_refund_pending=row.is_refund_pending,
    )


def _call(operation: Operation, payment: Any) -> Call:
    """Return the call. Its keys are derived from the order id, so a repeated call has the same keys."""
    order_id = payment.order_id
    return Call(
        operation=operation,
        key=f"{order_id}:{operation}",
        authorisation=f"{order_id}:{Operation.AUTHORISE}",
        amount=payment.amount,
        currency=payment.currency,
        method=payment.payment_method,
        reference=payment.transaction_reference,
    )


def _refund_call(payment: Any, refund: Refund | None) -> Call:
    """Return the call for a refund that an administrator asked for, or for all that is left of a cancelled order.

    No refund can be requested once the order is cancelled, so what is left stays the same until it is refunded.
    """
    call = _call(Operation.REFUND, payment)
    if refund is None:
        return replace(call, amount=payment.amount - payment.refund_requested_amount)
    return replace(call, key=refund.provider_key, amount=refund.amount, refund_id=refund.id)


def _oldest_pending(session: Session, payment_ids: Sequence[UUID]) -> dict[UUID, Refund]:
    """Return the oldest refund of each payment that the provider has not made yet."""
    if not payment_ids:
        return {}
    pending = (
        select(Refund)
        .where(Refund.payment_id.in_(payment_ids), Refund.status == RefundStatus.PENDING)
        .ext(distinct_on(Refund.payment_id))
        .order_by(Refund.payment_id, Refund.id)
    )
    return {refund.payment_id: refund for refund in session.scalars(pending)}


def refunds_by_key(session: Session, keys: Sequence[str]) -> dict[str, Refund]:
    """Return the refunds that are stored under these keys of the provider."""
    if not keys:
        return {}
    refunds = select(Refund).where(Refund.provider_key.in_(keys)).execution_options(populate_existing=True)
    return {refund.provider_key: refund for refund in session.scalars(refunds)}


def refused_refunds(session: Session, refund_ids: Iterable[UUID], times: int) -> Sequence[Refund]:
    """Return those of these refunds that are pending and that the provider has refused so often, or more often."""
    attempts = ProviderAttempt
    refusals = (
        select(func.count())
        .where(
            attempts.payment_id == Refund.payment_id,
            attempts.refund_id == Refund.id,
            attempts.outcome == AttemptOutcome.REFUSED,
        )
        .scalar_subquery()
    )
    pending = select(Refund).where(Refund.id.in_(list(refund_ids)), Refund.status == RefundStatus.PENDING)
    return session.scalars(pending.where(refusals >= times).execution_options(populate_existing=True)).all()


def lock_payment(session: Session, payment_id: UUID) -> Payment | None:
    """Lock one payment, and return its current state."""
    found = _locked(session, select(Payment).where(Payment.id == payment_id))
    return found[0] if found else None


def lock_payments_of_orders(session: Session, order_ids: Iterable[UUID]) -> dict[UUID, Payment]:
    """Lock these orders, and return the payment or tombstone of each order that has one."""
    wanted = sorted(set(order_ids))
    # A row that does not exist yet cannot be locked. So an advisory lock on the order id is taken first. Without it,
    # `order.created` and `order.cancelled` of one order, handled at the same time, would both find no row. If two
    # orders have the same key, one waits for the other, which is harmless.
    keys = sorted(int.from_bytes(order_id.bytes[-8:], signed=True) for order_id in wanted)
    session.execute(_LOCK_KEYS, {"keys": keys})
    payments = _locked(session, select(Payment).where(Payment.order_id.in_(wanted)))
    return {payment.order_id: payment for payment in payments}


def lock_payments(session: Session, payment_ids: Iterable[UUID]) -> Sequence[Payment]:
    """Return the current state of these payments, without those that another transaction has locked."""
    return _locked(session, select(Payment).where(Payment.id.in_(set(payment_ids))), skip_locked=True)


def unattended_payments(session: Session, limit: int) -> dict[UUID, Kind]:
    """Return the oldest pending payments, and those with a pending refund, that have no work item; with its kind.

    An earlier version of the service stores such payments during an upgrade, and deletes the work items of refunds.
    """
    items: Table = Base.work_items
    missing = ~exists().where(items.c.key == cast(Payment.id, Text))
    kinds: dict[UUID, Kind] = {}
    for condition in (Payment.status == State.PENDING, REFUND_PENDING):
        rows = select(Payment.id, Payment.status, Payment.cancel_requested).where(condition, missing)
        # A locked payment is left out: its transaction may be inserting the same work item, and the insert would wait.
        free = rows.order_by(Payment.id).limit(limit).with_for_update(skip_locked=True)
        for payment_id, status, cancelled in session.execute(free):
            is_new = status == State.PENDING and not cancelled
            kinds[payment_id] = Kind.AUTHORISATION if is_new else Kind.SETTLEMENT
    return kinds


def _locked(session: Session, payments: Select[Payment], *, skip_locked: bool = False) -> Sequence[Payment]:
    statement = payments.order_by(Payment.order_id).with_for_update(skip_locked=skip_locked)
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
