"""What happens to the orders of users who delete their accounts: open ones are cancelled, and all lose
their personal data.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import Publish, Received
from contracts.users import UserDeleted
from extensions.storage import deleted_users
from orders import personal_data, use_cases
from orders.models import Base

BATCH = 200


def record_deleted_users(session: Session, events: Sequence[Received[UserDeleted]]) -> None:
    """Store users whose orders are to be cancelled. They are cancelled in transactions of a bounded size."""
    deleted_users.add(session, Base.deleted_users, [received.event.user_id for received in events])


def lock_deleted_users(
    session: Session, *, only: Sequence[UUID] | None = None, without: Sequence[UUID] = ()
) -> Sequence[deleted_users.DeletedUser]:
    """Lock and return deleted users whose orders are to be looked for."""
    return deleted_users.lock_due(session, Base.deleted_users, only=only, without=without)


def cancel_orders(
    session: Session, users: Sequence[deleted_users.DeletedUser], publish: Publish
) -> tuple[dict[UUID, int], bool]:
    """Cancel open orders of users that `lock_deleted_users` returned, or else remove personal data: of BATCH orders.

    Returns the new versions of the orders that changed, and whether there may be more.
    """
    user_ids = [user.id for user in users]
    cancelled = use_cases.cancel_orders_of_users(session, user_ids, BATCH, publish)
    if cancelled:  # personal data in a later transaction: each locks its orders in one order
        return {order.id: order.version for order in cancelled}, True
    changed = personal_data.remove(session, user_ids, BATCH)
    is_full = len(changed) == BATCH
    if not is_full:
        deleted_users.postpone(session, Base.deleted_users, user_ids)
    return changed, is_full
