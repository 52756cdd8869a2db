"""What changes payments. Nothing here commits: the entrypoint does.

The provider is idempotent, and every call has a key that follows from the order: what a crash repeats, it does once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.orm import Session

from contracts.base import Publish, Received
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from extensions.bulk import update_rows
from payments import queries, rules
from payments.models import Payment
from payments.provider import Answer, Approved, Declined, PaymentProvider, ProviderRefuses
from payments.rules import Operation, State, Step

_CHANGEABLE = ("id", "status", "cancel_requested", "transaction_reference", "failure_reason")


def open_payments(session: Session, events: Sequence[Received[OrderCreated]]) -> None:
    """Note that the orders are to be paid; the provider is asked later, outside of this transaction."""
    payments = queries.lock_payments_of_orders(session, [received.event.order_id for received in events])
    states = {order_id: payment.state for order_id, payment in payments.items()}
    opened = []
    for received in events:
        order = received.event
        if step := rules.step_for(states.get(order.order_id), OrderCreated):
            states[order.order_id] = step.becomes
            opened.append(_new_row(received, step) | {"amount": order.total_amount, "currency": order.currency})
    if opened:
        session.execute(insert(Payment), opened)


def ask_provider(pending: Iterable[queries.Pending], provider: PaymentProvider) -> dict[UUID, Answer]:
    """Ask the provider to hold the money for each payment. It takes its time, so call this outside a transaction."""
    return {
        payment.payment_id: provider.authorise(f"{payment.order_id}:authorise", payment.amount, payment.currency)
        for payment in pending
    }


def record_answers(
    session: Session, answers: Mapping[UUID, Answer], provider: PaymentProvider, publish: Publish
) -> None:
    """Enter what the provider answered, by payment id; what was cancelled meanwhile is voided."""
    changed = []
    for payment in queries.lock_payments(session, answers):
        answer = answers[payment.id]
        if step := rules.step_for(payment.state, type(answer)):  # None: another replica has recorded it
            changed.append(_carry_out(step, payment, _row(payment, answer), provider, publish, payment.cause))
    _store(session, changed)


def capture_payments(
    session: Session, events: Sequence[Received[OrderConfirmed]], provider: PaymentProvider, publish: Publish
) -> None:
    """Take the money of confirmed orders. Raises PaymentMissing for an order that payments has never heard of."""
    _settle(session, events, provider, publish)


def cancel_payments(
    session: Session, events: Sequence[Received[OrderCancelled]], provider: PaymentProvider, publish: Publish
) -> None:
    """Void or refund the payments of cancelled orders; remember the cancellation where it is too early for that."""
    _settle(session, events, provider, publish)


def _settle(session: Session, events: Sequence[Received[Any]], provider: PaymentProvider, publish: Publish) -> None:
    """Lock what the events are about, let the rules decide about each in turn, and write it all at once."""
    payments = queries.lock_payments_of_orders(session, [received.event.order_id for received in events])
    states = {order_id: payment.state for order_id, payment in payments.items()}
    due = [(each, step) for each in events if (step := _advance(states, each))]
    tombstones = [_new_row(each, step) for each, step in due if each.event.order_id not in payments]
    changed = []
    for each, step in due:
        if payment := payments.get(each.event.order_id):
            changed.append(_carry_out(step, payment, _row(payment), provider, publish, each))
    if tombstones:
        session.execute(insert(Payment), tombstones)
    _store(session, changed)


def _advance(states: dict[UUID, State], received: Received[Any]) -> Step | None:
    """Return the step that the event leads to and enter it in `states`, so that its repetition leads to none."""
    order_id = received.event.order_id
    step = rules.step_for(states.get(order_id), type(received.event))
    if step:
        states[order_id] = step.becomes
    return step


def _new_row(received: Received[Any], step: Step) -> dict[str, Any]:
    return {
        "order_id": received.event.order_id,
        "user_id": received.event.user_id,
        "status": step.becomes,
        "cause_message_id": received.message_id,
        "cause_request_id": received.request_id,
        "cause_traceparent": received.traceparent,
    }


def _row(payment: Payment, answer: Answer | None = None) -> dict[str, Any]:
    """Return what can change of a payment, with the provider's answer in it."""
    return {
        "id": payment.id,
        "order_id": payment.order_id,
        "status": payment.status,
        "cancel_requested": payment.cancel_requested,
        "transaction_reference": answer.reference if isinstance(answer, Approved) else payment.transaction_reference,
        "failure_reason": answer.reason if isinstance(answer, Declined) else payment.failure_reason,
    }


def _carry_out(
    step: Step,
    payment: Payment,
    row: dict[str, Any],
    provider: PaymentProvider,
    publish: Publish,
    cause: Received[Any],
) -> dict[str, Any]:
    """Do what the step asks of the provider, announce it, and return the row as it is afterwards."""
    try:
        steps = [(step, _take(step, row, provider))]
    except ProviderRefuses:
        if step.asks is None or step.asks not in rules.CATCH_UP:
            raise
        steps = []
        for missed in rules.CATCH_UP[step.asks]:
            row = _take(missed, row, provider)
            steps.append((missed, row))
    for done, after in steps:
        _announce(done, payment, after, publish, cause)
    return steps[-1][1]


def _take(step: Step, row: dict[str, Any], provider: PaymentProvider) -> dict[str, Any]:
    """Do what the step asks of the provider, and return the row as it is afterwards."""
    key = f"{row['order_id']}:{step.asks}"
    match step.asks:
        case Operation.CAPTURE:
            provider.capture(row["transaction_reference"], key)
        case Operation.VOID:
            provider.void(row["transaction_reference"], key)
        case Operation.REFUND:
            provider.refund(row["transaction_reference"], key)
    if step.becomes is State.CANCELLING:
        return row | {"cancel_requested": True}
    return row | {"status": step.becomes}


def _announce(step: Step, payment: Payment, row: dict[str, Any], publish: Publish, cause: Received[Any]) -> None:
    if step.publishes is None:
        return
    facts = {
        "order_id": payment.order_id,
        "payment_id": payment.id,
        "transaction_reference": row["transaction_reference"],
        "amount": payment.amount,
        "currency": payment.currency,
        "reason": row["failure_reason"],
    }
    publish(step.publishes.model_validate(facts), cause)  # each event takes those that it has


def _store(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Write what changed, in one statement."""
    update_rows(session, Payment, [{name: row[name] for name in _CHANGEABLE} for row in rows])
