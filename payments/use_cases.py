"""The use cases of payments. They never commit: the entrypoint does.

Every call of the provider has an idempotency key derived from the order, so a call repeated after a crash acts once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import Cause, Publish, Received
from contracts.ids import new_id
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from extensions.storage.bulk import insert_rows, update_rows
from payments import queries, rules
from payments.models import Base, Payment
from payments.provider import Approved, Declined, Outcome, PaymentProvider, ProviderRefuses
from payments.rules import Operation, State, Step

OrderEvent = OrderCreated | OrderConfirmed | OrderCancelled

_PAYMENTS = Base.metadata.tables["payments"]
_CHANGEABLE = ("id", "status", "cancel_requested", "transaction_reference", "failure_reason")


def follow_orders(
    session: Session, events: Sequence[Received[OrderEvent]], provider: PaymentProvider, publish: Publish
) -> bool:
    """Open a payment for new orders, capture it for confirmed ones, void or refund it for cancelled ones.

    Locks the payments of the orders, applies the rules to each event, and writes all rows in one statement. Returns
    whether a payment was opened: the provider is asked about it later, outside of this transaction. Raises
    PaymentMissing for the confirmation of an order without a payment.
    """
    payments = queries.lock_payments_of_orders(session, [received.event.order_id for received in events])
    states = {order_id: payment.state for order_id, payment in payments.items()}
    # Check all events before the first call of the provider.
    due = [(each, step) for each in events if (step := _advance(states, each))]
    opened: dict[UUID, dict[str, Any]] = {}
    changed: dict[UUID, dict[str, Any]] = {}
    for received, step in due:
        order_id = received.event.order_id
        if payment := payments.get(order_id):
            row = changed.get(order_id) or _row(payment)
            changed[order_id] = _carry_out(step, payment, row, provider, publish, received)
        elif order_id in opened:  # opened and cancelled in the same batch
            opened[order_id] = _take(step, opened[order_id], provider)
        else:
            opened[order_id] = _new_row(received, step)
    insert_rows(session, _PAYMENTS, list(opened.values()))
    _store(session, list(changed.values()))
    return State.PENDING in {row["status"] for row in opened.values()}


def ask_provider(pending: Iterable[queries.Pending], provider: PaymentProvider) -> dict[UUID, Outcome]:
    """Ask the provider to hold the money for each payment. This may be slow: call it outside a transaction."""
    return {
        payment.payment_id: provider.authorise(f"{payment.order_id}:authorise", payment.amount, payment.currency)
        for payment in pending
    }


def record_outcomes(
    session: Session, outcomes: Mapping[UUID, Outcome], provider: PaymentProvider, publish: Publish
) -> None:
    """Record the provider's outcomes, by payment id; a payment cancelled in the meantime is voided."""
    changed = []
    for payment in queries.lock_payments(session, outcomes):
        outcome = outcomes[payment.id]
        if step := rules.step_for(payment.state, type(outcome)):  # None: another replica has recorded it
            changed.append(_carry_out(step, payment, _row(payment, outcome), provider, publish, payment.cause))
    _store(session, changed)


def _advance(states: dict[UUID, State], received: Received[OrderEvent]) -> Step | None:
    """Return the step for the event, and update `states`, so that a duplicate of the event gets none."""
    order_id = received.event.order_id
    step = rules.step_for(states.get(order_id), type(received.event))
    if step:
        states[order_id] = step.becomes
    return step


def _new_row(received: Received[OrderEvent], step: Step) -> dict[str, Any]:
    """Return the row of a new order, or the tombstone of one that was cancelled before."""
    order = received.event
    return {
        "id": new_id(),
        "order_id": order.order_id,
        "user_id": order.user_id,
        "amount": order.total_amount if isinstance(order, OrderCreated) else None,
        "currency": order.currency if isinstance(order, OrderCreated) else None,
        "status": step.becomes,
        "cancel_requested": False,
        "cause_message_id": received.message_id,
        "cause_request_id": received.request_id,
        "cause_traceparent": received.traceparent,
    }


def _row(payment: Payment, outcome: Outcome | None = None) -> dict[str, Any]:
    """Return the columns of a payment that can change, with the provider's outcome."""
    return {
        "id": payment.id,
        "order_id": payment.order_id,
        "status": payment.status,
        "cancel_requested": payment.cancel_requested,
        "transaction_reference": outcome.reference if isinstance(outcome, Approved) else payment.transaction_reference,
        "failure_reason": outcome.reason if isinstance(outcome, Declined) else payment.failure_reason,
    }


def _carry_out(
    step: Step,
    payment: Payment,
    row: dict[str, Any],
    provider: PaymentProvider,
    publish: Publish,
    cause: Cause,
) -> dict[str, Any]:
    """Call the provider as the step demands, publish the step's event, and return the new row."""
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
    """Call the provider as the step demands, and return the new row."""
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


def _announce(step: Step, payment: Payment, row: dict[str, Any], publish: Publish, cause: Cause) -> None:
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
    publish(step.publishes.model_validate(facts), cause)  # each event picks its own fields


def _store(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Write the changed rows in one statement."""
    update_rows(session, _PAYMENTS, [{name: row[name] for name in _CHANGEABLE} for row in rows])
