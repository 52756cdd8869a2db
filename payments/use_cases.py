"""The use cases of the payments service. They never commit: the entrypoint does.

An event about an order changes its payment, and schedules a work item for the call of the provider. ProviderCalls makes
the call outside of any transaction, and `record_outcomes` records its outcome. Every call has an idempotency key that
is derived from the order and the refund, so a repeated call takes effect once.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import Cause, Publish, Received
from contracts.ids import new_id
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import PaymentPartiallyRefunded, PaymentRefunded
from extensions.storage import work_items
from extensions.storage.bulk import insert_rows, update_and_insert, update_rows
from extensions.storage.work_items import Failure, Item
from payments import attempts, queries, refunds, rules
from payments.attempts import ATTEMPTS, Answer
from payments.models import Base, Payment, Refund
from payments.provider import Approved, Call, Declined, Outcome, PaymentProvider, ProviderRefuses, Refunded
from payments.rules import STORED, State, Step

OrderEvent = OrderCreated | OrderConfirmed | OrderCancelled

ADOPTION_BATCH = 500
REFUND_EVENTS = (PaymentPartiallyRefunded, PaymentRefunded)
_PAYMENTS = Base.metadata.tables["payments"]
_STATE_COLUMNS = ("status", "capture_requested", "cancel_requested")


def apply_order_events(session: Session, events: Sequence[Received[OrderEvent]]) -> set[rules.Kind]:
    """Open a payment for new orders; let confirmed ones be captured, and cancelled ones be voided or refunded.

    Locks the payments of the orders, applies the rules to each event, writes all rows in one statement, and schedules
    the calls of the provider. Returns their kinds. Raises PaymentMissing for the confirmation of an order
    without a payment.
    """
    payments = queries.lock_payments_of_orders(session, [received.event.order_id for received in events])
    states = {order_id: payment.state for order_id, payment in payments.items()}
    opened: dict[UUID, dict[str, Any]] = {}
    changed: dict[UUID, dict[str, Any]] = {}
    for received in events:
        order_id = received.event.order_id
        step = _advance(states, received)
        if step is None:
            continue
        if payment := payments.get(order_id):
            changed[order_id] = _row(payment) | _stored(step.becomes)
        elif order_id in opened:  # opened and cancelled in the same batch
            opened[order_id] |= _stored(step.becomes)
        else:
            opened[order_id] = _new_row(received, step)
    insert_rows(session, _PAYMENTS, list(opened.values()))
    _store(session, list(changed.values()))
    calls = {
        str(row["id"]): kind
        for order_id, row in (opened | changed).items()
        if (kind := rules.kind_of(states[order_id]))
    }
    work_items.schedule(session, calls)
    return set(calls.values())


def record_outcomes(
    session: Session, outcomes: Mapping[UUID, Answer | None], publish: Publish
) -> dict[UUID, rules.Kind | None]:
    """Record the provider's outcomes by payment id. An outcome that was recorded before changes nothing.

    Returns the kind of the next call of each payment, or None if it needs none. A payment whose row is locked is left
    out of the result.
    """
    payments = queries.lock_payments(session, outcomes)
    answers = {payment.id: answer for payment in payments if (answer := outcomes[payment.id]) is not None}
    known = queries.refunds_by_key(session, [each.call.key for each in answers.values() if _is_refund(each)])
    changed, following, refunded = [], {}, []
    for payment in payments:
        answer, state = answers.get(payment.id), payment.state
        step, row = (None, {}) if answer is None else _step(payment, answer, known)
        if step is not None and answer is not None:
            changed.append(row)
            _announce(step, payment, row, publish, _cause_of(payment, answer, known))
            state = step.becomes
            if _is_refund(answer):
                refunded.append((payment, answer))
        following[payment.id] = rules.kind_of(state)
    # In one round trip: every order makes it.
    update_and_insert(session, _PAYMENTS, changed, ATTEMPTS, attempts.rows_of(answers))
    refunds.record_made(session, refunded, known)
    return following


def adopt_payments(session: Session) -> int:
    """Schedule the calls for payments that have no work item but need one.

    Returns how many, at most ADOPTION_BATCH for each kind.
    """
    found = queries.unattended_payments(session, ADOPTION_BATCH)
    work_items.schedule(session, {str(payment_id): kind for payment_id, kind in found.items()})
    return len(found)


class ProviderCalls:
    """The work items of the payments service, with payment ids as keys. The payment's state determines the call."""

    def __init__(self, provider: PaymentProvider) -> None:
        self._provider = provider

    def prepare(self, session: Session, items: Sequence[Item]) -> Mapping[str, Call]:
        """Return the call of each item."""
        calls = queries.calls_of(session, [UUID(item.key) for item in items])
        numbers = {item.key: item.attempts for item in items}
        return {str(payment_id): replace(call, attempt=numbers[str(payment_id)]) for payment_id, call in calls.items()}

    def execute(self, request: Call) -> Sequence[Answer]:
        """Call the provider."""
        began_at, began = attempts.now(), time.monotonic()
        outcomes = self._provider.ask(request)
        duration = timedelta(seconds=time.monotonic() - began)
        return [Answer(request, outcome, began_at, duration) for outcome in outcomes]

    def is_outage(self, error: BaseException) -> bool:
        """Tell whether the provider does not work; False if it refused the call."""
        return not isinstance(error, ProviderRefuses)

    def record(
        self, session: Session, outcomes: Mapping[str, Answer | None], publish: Publish
    ) -> Mapping[str, str | None]:
        """Record the outcomes."""
        found = record_outcomes(session, {UUID(key): outcome for key, outcome in outcomes.items()}, publish)
        return {str(payment_id): kind for payment_id, kind in found.items()}

    def record_failures(self, session: Session, failures: Sequence[Failure]) -> None:
        """Record the calls that failed, and give up refunds that the provider refuses again and again."""
        attempts.record_failures(session, failures)
        refunds.give_up_refused(session, failures)


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
        "payment_method": order.payment_method if isinstance(order, OrderCreated) else "",
        **_stored(step.becomes),
        "cause_message_id": received.message_id,
        "cause_request_id": received.request_id,
        "cause_traceparent": received.traceparent,
    }


def _is_refund(answer: Answer) -> bool:
    return isinstance(answer.outcome, Refunded)


def _step(payment: Payment, answer: Answer, known: Mapping[str, Refund]) -> tuple[Step | None, dict[str, Any]]:
    """Return the step for an outcome of the provider, and the row of the payment after it."""
    row = _row(payment, answer.outcome)
    trigger: Any = type(answer.outcome)
    if isinstance(answer.outcome, Refunded):
        refund = known.get(answer.call.key)
        if refund is not None and refund.completed_at is not None:
            return None, row
        row |= refunds.sums_after(payment, answer.call)
        trigger = rules.refund_made(
            payment.amount or Decimal(0), row["refund_requested_amount"], row["refunded_amount"]
        )
    step = rules.step_for(payment.state, trigger)
    return step, row | (_stored(step.becomes) if step else {})


def _cause_of(payment: Payment, answer: Answer, known: Mapping[str, Refund]) -> Cause:
    refund = known.get(answer.call.key)
    return payment.cause if refund is None else refund.cause


def _row(payment: Payment, outcome: Outcome | None = None) -> dict[str, Any]:
    """Return the columns of a payment that can change, with the provider's outcome."""
    return {
        "id": payment.id,
        **_stored(payment.state),
        "refund_requested_amount": payment.refund_requested_amount,
        "refunded_amount": payment.refunded_amount,
        "transaction_reference": outcome.reference if isinstance(outcome, Approved) else payment.transaction_reference,
        "failure_reason": outcome.reason if isinstance(outcome, Declined) else payment.failure_reason,
    }


def _stored(state: State) -> dict[str, Any]:
    return dict(zip(_STATE_COLUMNS, STORED[state], strict=True))


def _announce(step: Step, payment: Payment, row: dict[str, Any], publish: Publish, cause: Cause) -> None:
    if step.publishes is None:
        return
    given_back = row["refunded_amount"] - payment.refunded_amount
    facts = {
        "order_id": payment.order_id,
        "payment_id": payment.id,
        "user_id": payment.user_id,
        "transaction_reference": row["transaction_reference"],
        "amount": given_back if step.publishes in REFUND_EVENTS else payment.amount,
        "remaining": (payment.amount or 0) - row["refunded_amount"],
        "currency": payment.currency,
        "reason": row["failure_reason"],
    }
    publish(step.publishes.model_validate(facts), cause)  # each event picks its own fields


def _store(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Write the changed rows in one statement."""
    update_rows(session, _PAYMENTS, rows)
