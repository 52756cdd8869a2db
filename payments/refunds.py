"""Refunds: what administrators ask for, and what the provider has made. Both happen under the lock of the payment.

A payment stores the sums of its refunds, and a CHECK constraint compares them with what was captured. So no refund can
be requested that would be more than what is left, whatever else happens to the payment at the same time.

A refund that the provider refuses again and again is given up. It is then no part of these sums any more. The refund of
a cancelled order is never given up, like a capture or a void: the customer must get the money.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import Actor, Cause
from contracts.errors import InvalidState
from contracts.ids import new_id
from contracts.payments import PaymentNotFound, RefundPayment, RefundStatus, RefundView
from extensions.storage import work_items
from extensions.storage.work_items import Failure
from payments import attempts, queries, rules
from payments.attempts import Answer
from payments.models import RECORD_REFUNDS, Payment, Refund
from payments.provider import Call, Operation, ProviderRefuses
from payments.rules import Kind, RefundRequested, State

log = logging.getLogger(__name__)

MOST_REFUSALS = 20
"""So often is a refund tried that the provider refuses. Other failures do not count: the provider may have acted, or
will be able to."""


def request_refund(
    session: Session, payment_id: UUID, request: RefundPayment, actor: Actor, cause: Cause
) -> RefundView:
    """Store a refund of what is asked for, or of all that is left, and schedule its call of the provider.

    Raises PaymentNotFound, and InvalidState if nothing is captured, or if more is asked for than is left.
    """
    payment = queries.lock_payment(session, payment_id)
    if payment is None or payment.amount is None:
        raise PaymentNotFound
    step = rules.step_for(payment.state, RefundRequested)
    if step is None:
        raise InvalidState(_why_not(payment))
    left = payment.amount - payment.refund_requested_amount
    amount = left if request.amount is None else request.amount
    if not 0 < amount <= left:
        raise InvalidState(f"{left:.2f} {payment.currency} of this payment are left to refund.")
    refund = _new(payment, amount, request.reason, actor, cause)
    session.add(refund)
    payment.refund_requested_amount += amount
    session.flush()
    work_items.schedule(session, {str(payment.id): Kind.SETTLEMENT})
    return queries.refund_view(refund, payment)


def key_of(order_id: UUID, refund_id: UUID | None) -> str:
    """Return the idempotency key of a refund; without an id, of all that is left when the order is cancelled."""
    return f"{order_id}:{Operation.REFUND}" + ("" if refund_id is None else f":{refund_id}")


def sums_after(payment: Payment, call: Call) -> dict[str, Decimal]:
    """Return the sums of the refunds of a payment after this refund was made."""
    requested = payment.refund_requested_amount
    return {
        "refund_requested_amount": requested if call.refund_id else requested + call.amount,
        "refunded_amount": payment.refunded_amount + call.amount,
    }


def record_made(session: Session, made: Iterable[tuple[Payment, Answer]], known: Mapping[str, Refund]) -> None:
    """Record refunds that the provider has made. `known` are the refunds that were requested, by their keys."""
    rows = [_made(payment, answer, known.get(answer.call.key)) for payment, answer in made]
    if rows:
        session.execute(RECORD_REFUNDS, {name: [row[name] for row in rows] for name in rows[0]})


def give_up_refused(session: Session, failures: Sequence[Failure]) -> None:
    """Give up refunds that administrators asked for, if one of these failures is the last refusal of MOST_REFUSALS.

    One whose payment is locked is given up after its next refusal.
    """
    refused: dict[UUID, Call] = {
        call.refund_id: call
        for each in failures
        if each.attempt is not None
        and isinstance(each.attempt.error, ProviderRefuses)
        and (call := each.attempt.request).refund_id is not None
    }
    hopeless = queries.refused_refunds(session, refused, MOST_REFUSALS) if refused else []
    if not hopeless:
        return
    payments = {each.id: each for each in queries.lock_payments(session, {each.payment_id for each in hopeless})}
    for refund in hopeless:
        payment = payments.get(refund.payment_id)
        if payment is not None:
            refund.status = RefundStatus.FAILED
            payment.refund_requested_amount -= refund.amount
            attempts.note_end(session, payment.id, refused[refund.id], "the refund is given up")
            log.error("the refund %s of the payment %s is given up: the provider refuses it", refund.id, payment.id)
    session.flush()


def _made(payment: Payment, answer: Answer, requested: Refund | None) -> dict[str, Any]:
    cause = payment.cause if requested is None else requested.cause
    return {
        "id": new_id(),
        "payment_id": payment.id,
        "amount": answer.call.amount,
        "provider_key": answer.call.key,
        "provider_reference": getattr(answer.outcome, "reference", None),
        "cause_request_id": cause.request_id,
        "cause_traceparent": cause.traceparent,
    }


def _new(payment: Payment, amount: Decimal, reason: str, actor: Actor, cause: Cause) -> Refund:
    refund_id = new_id()
    return Refund(
        id=refund_id,
        payment_id=payment.id,
        amount=amount,
        status=RefundStatus.PENDING,
        reason=reason,
        requested_by=actor.user_id,
        provider_key=key_of(payment.order_id, refund_id),
        cause_request_id=cause.request_id,
        cause_traceparent=cause.traceparent,
    )


def _why_not(payment: Payment) -> str:
    if payment.state in {State.REFUNDING, State.REFUNDING_REST}:
        return "The order was cancelled: all that is left is being refunded already."
    if payment.state is State.REFUNDED:
        return "All of this payment was refunded already."
    return f"This payment is {payment.status}: only what was captured can be refunded."
