"""The use cases of the payments service. They never commit: the entrypoint does.

An event about an order changes its payment, and schedules a work item for the call of the provider. ProviderCalls makes
the call outside of any transaction, and `record_outcomes` records its outcome. Every call has an idempotency key that
is derived from the order, so a repeated call takes effect once.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import Cause, Publish, Received
from contracts.ids import new_id
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from extensions.storage import work_items
from extensions.storage.bulk import insert_rows, update_rows
from extensions.storage.work_items import Item
from payments import queries, rules
from payments.models import Base, Payment
from payments.provider import Approved, Call, Declined, Outcome, PaymentProvider, ProviderRefuses
from payments.rules import STORED, State, Step

OrderEvent = OrderCreated | OrderConfirmed | OrderCancelled

ADOPTION_BATCH = 500
_PAYMENTS = Base.metadata.tables["payments"]
_STATE_COLUMNS = ("status", "capture_requested", "cancel_requested")
_CHANGEABLE = ("id", *_STATE_COLUMNS, "transaction_reference", "failure_reason")


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
    session: Session, outcomes: Mapping[UUID, Outcome | None], publish: Publish
) -> dict[UUID, rules.Kind | None]:
    """Record the provider's outcomes by payment id. An outcome that was recorded before changes nothing.

    Returns the kind of the next call of each payment, or None if it needs none. A payment whose row is locked is left
    out of the result.
    """
    changed, following = [], {}
    for payment in queries.lock_payments(session, outcomes):
        outcome, state = outcomes[payment.id], payment.state
        step = None if outcome is None else rules.step_for(state, type(outcome))
        if step is not None:
            row = _row(payment, outcome) | _stored(step.becomes)
            changed.append(row)
            _announce(step, payment, row, publish, payment.cause)
            state = step.becomes
        following[payment.id] = rules.kind_of(state)
    _store(session, changed)
    return following


def adopt_payments(session: Session) -> int:
    """Schedule the calls for pending payments that have no work item. Returns how many, at most ADOPTION_BATCH."""
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
        return {str(payment_id): call for payment_id, call in calls.items()}

    def execute(self, request: Call) -> Sequence[Outcome]:
        """Call the provider."""
        return self._provider.ask(request)

    def is_outage(self, error: BaseException) -> bool:
        """Tell whether the provider does not work; False if it refused the call."""
        return not isinstance(error, ProviderRefuses)

    def record(
        self, session: Session, outcomes: Mapping[str, Outcome | None], publish: Publish
    ) -> Mapping[str, str | None]:
        """Record the outcomes."""
        found = record_outcomes(session, {UUID(key): outcome for key, outcome in outcomes.items()}, publish)
        return {str(payment_id): kind for payment_id, kind in found.items()}


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


def _row(payment: Payment, outcome: Outcome | None = None) -> dict[str, Any]:
    """Return the columns of a payment that can change, with the provider's outcome."""
    return {
        "id": payment.id,
        **_stored(payment.state),
        "transaction_reference": outcome.reference if isinstance(outcome, Approved) else payment.transaction_reference,
        "failure_reason": outcome.reason if isinstance(outcome, Declined) else payment.failure_reason,
    }


def _stored(state: State) -> dict[str, Any]:
    return dict(zip(_STATE_COLUMNS, STORED[state], strict=True))


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
    update_rows(session, _PAYMENTS, rows)
