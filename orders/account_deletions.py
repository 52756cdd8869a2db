"""What happens to the orders of users who delete their accounts: open ones are cancelled, all stay in the books."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import Publish, Received
from contracts.users import UserDeleted
from extensions.storage import deleted_users
from orders import use_cases
from orders.models import Base, LockedOrder

CANCEL_BATCH = 200


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
) -> tuple[list[LockedOrder], bool]:
    """Cancel the open orders of users that `lock_deleted_users` returned, at most CANCEL_BATCH.

    Returns the orders, and whether there may be more.
    """
    user_ids = [user.id for user in users]
    orders = use_cases.cancel_orders_of_users(session, user_ids, CANCEL_BATCH, publish)
    is_full = len(orders) == CANCEL_BATCH
    if not is_full:
        deleted_users.postpone(session, Base.deleted_users, user_ids)
    return orders, is_full
