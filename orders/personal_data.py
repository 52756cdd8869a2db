"""Removes what orders stores about a person. The orders themselves stay: they are part of the books."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

# Sorted by id, as all transactions lock orders.
_REMOVE_ADDRESSES = text(
    """
    WITH locked AS (
        SELECT id FROM orders WHERE user_id = :user_id AND shipping_address IS NOT NULL ORDER BY id FOR UPDATE
    )
    UPDATE orders SET shipping_address = NULL, version = version + 1, updated_at = clock_timestamp()
    FROM locked WHERE orders.id = locked.id
    RETURNING orders.id, orders.version
    """
)
# The stored results are orders, with the address.
_REMOVE_RESULTS = text("DELETE FROM idempotency_keys WHERE actor = :actor")


def remove_addresses(session: Session, user_id: UUID) -> dict[UUID, int]:
    """Remove the addresses from all orders of a user, and the stored results of the user's calls.

    Returns the new version of each order that changed, by id, so that the caller can invalidate the cached ones. A
    repetition changes nothing.
    """
    changed = {row.id: row.version for row in session.execute(_REMOVE_ADDRESSES, {"user_id": user_id})}
    session.execute(_REMOVE_RESULTS, {"actor": str(user_id)})
    return changed
