"""The calls of the provider that have ended, for the administrators who ask why a payment is where it is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, text, update
from sqlalchemy.orm import Session

from contracts.payments import AttemptOutcome
from extensions.storage.bulk import insert_rows
from extensions.storage.work_items import Failure
from payments.models import Base
from payments.provider import (
    Approved,
    Call,
    Captured,
    Declined,
    Outcome,
    OutcomeUnknown,
    ProviderRefuses,
    ProviderUnavailable,
    Refunded,
    Voided,
)

ATTEMPTS = Base.metadata.tables["provider_attempts"]
MAX_FAILED = 100
"""The failed attempts of one operation that are kept; the oldest are deleted."""
MAX_DETAIL = 500
_OUTCOMES: Mapping[type[Outcome], AttemptOutcome] = {
    Approved: AttemptOutcome.APPROVED,
    Declined: AttemptOutcome.DECLINED,
    Captured: AttemptOutcome.CAPTURED,
    Voided: AttemptOutcome.VOIDED,
    Refunded: AttemptOutcome.REFUNDED,
}
_ERRORS: Mapping[type[BaseException], AttemptOutcome] = {
    ProviderUnavailable: AttemptOutcome.UNAVAILABLE,
    ProviderRefuses: AttemptOutcome.REFUSED,
    OutcomeUnknown: AttemptOutcome.UNKNOWN,
    TimeoutError: AttemptOutcome.UNKNOWN,
}
_DELETE_OLDEST = text(
    "DELETE FROM provider_attempts AS old"
    " USING unnest(CAST(:payments AS uuid[]), CAST(:operations AS text[]), CAST(:attempts AS integer[]))"
    " AS latest (payment_id, operation, attempt)"
    " WHERE old.payment_id = latest.payment_id AND old.operation = latest.operation AND old.attempt <= latest.attempt"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome of the provider, with the call, when the call began, and how long it took."""

    call: Call
    outcome: Outcome
    began_at: datetime
    duration: timedelta


def now() -> datetime:
    """Return the time by the clock of this process."""
    return datetime.now(UTC)


def rows_of(answers: Mapping[UUID, Answer]) -> list[dict[str, Any]]:
    """Return the rows for outcomes of the provider, by payment id."""
    return [
        _row(payment_id, answer.call, answer.began_at, answer.duration, _OUTCOMES[type(answer.outcome)])
        | {"detail": answer.outcome.reason if isinstance(answer.outcome, Declined) else None}
        for payment_id, answer in answers.items()
    ]


def record_failures(session: Session, failures: Sequence[Failure]) -> None:
    """Record calls that failed. Of each operation of a payment, the latest MAX_FAILED are kept."""
    failed = [(UUID(each.item.key), each.attempt) for each in failures if each.attempt is not None]
    rows = [
        _row(payment_id, attempt.request, attempt.began_at, attempt.duration, _outcome_of(attempt.error))
        | {"detail": (str(attempt.error) or type(attempt.error).__name__).replace("\x00", "")[:MAX_DETAIL]}
        for payment_id, attempt in failed
    ]
    insert_rows(session, ATTEMPTS, rows)
    _delete_oldest(session, (row for row in rows if row["attempt"] > MAX_FAILED))


def note_end(session: Session, payment_id: UUID, call: Call, note: str) -> None:
    """Add to what is recorded of an attempt that no other one follows."""
    columns = ATTEMPTS.c
    this = (
        columns.payment_id == payment_id,
        columns.refund_id == call.refund_id,
        columns.attempt == call.attempt,
    )
    detail = func.left(func.concat(note, ": ", columns.detail), MAX_DETAIL)
    session.execute(update(ATTEMPTS).where(*this).values(detail=detail))


def _row(
    payment_id: UUID, call: Call, began_at: datetime, duration: timedelta, outcome: AttemptOutcome
) -> dict[str, Any]:
    return {
        "payment_id": payment_id,
        "operation": call.operation,
        "refund_id": call.refund_id,
        "attempt": call.attempt,
        "at": began_at,
        "duration_ms": round(duration / timedelta(milliseconds=1)),
        "outcome": outcome,
    }


def _outcome_of(error: BaseException) -> AttemptOutcome:
    return next((outcome for kind, outcome in _ERRORS.items() if isinstance(error, kind)), AttemptOutcome.ERROR)


def _delete_oldest(session: Session, rows: Iterable[dict[str, Any]]) -> None:
    if many := list(rows):
        values = {
            "payments": [row["payment_id"] for row in many],
            "operations": [row["operation"] for row in many],
            "attempts": [row["attempt"] - MAX_FAILED for row in many],
        }
        session.execute(_DELETE_OLDEST, values)
