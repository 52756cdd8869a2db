"""What happens to the payments of users who delete their accounts: the amounts stay, how they paid is removed."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Text, and_, cast, exists, or_, select, update
from sqlalchemy.orm import Session

from contracts.base import Received
from contracts.payments import DEFAULT_PAYMENT_METHOD
from contracts.users import UserDeleted
from extensions.storage import deleted_users
from payments.models import Base, Payment
from payments.rules import State

CLEAR_BATCH = 500
# A payment that needs a call of the provider keeps its method: the provider may compare repeated calls. So does one
# that will need a call. They are cleared by a later check.
SETTLED = and_(
    Payment.status.not_in([State.PENDING, State.AUTHORIZED, State.CANCELLED_BEFORE]),
    ~exists().where(Base.work_items.c.key == cast(Payment.id, Text)),
)


def record_deleted_users(session: Session, events: Sequence[Received[UserDeleted]]) -> None:
    """Store users whose payments are to be cleared."""
    deleted_users.add(session, Base.deleted_users, [received.event.user_id for received in events])


def lock_deleted_users(
    session: Session, *, only: Sequence[UUID] | None = None, without: Sequence[UUID] = ()
) -> Sequence[deleted_users.DeletedUser]:
    """Lock and return deleted users whose payments are to be looked for."""
    return deleted_users.lock_due(session, Base.deleted_users, only=only, without=without)


def clear_payments(session: Session, users: Sequence[deleted_users.DeletedUser]) -> bool:
    """Remove the payment method, and why the provider declined, from at most CLEAR_BATCH payments of these users.

    Returns whether there may be more. A locked payment is left to a later check.
    """
    user_ids = [user.id for user in users]
    known = or_(Payment.payment_method != DEFAULT_PAYMENT_METHOD, Payment.failure_reason.is_not(None))
    found = select(Payment.id).where(Payment.user_id.in_(user_ids), SETTLED, known).limit(CLEAR_BATCH)
    payment_ids = session.scalars(found.with_for_update(skip_locked=True)).all()
    session.execute(
        update(Payment)
        .where(Payment.id.in_(payment_ids))
        .values(payment_method=DEFAULT_PAYMENT_METHOD, failure_reason=None)
        .execution_options(synchronize_session=False)
    )
    is_full = len(payment_ids) == CLEAR_BATCH
    if not is_full:
        deleted_users.postpone(session, Base.deleted_users, user_ids)
    return is_full
