"""Removes what orders stores about a person. The orders themselves stay: they are part of the books."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

# Sorted by id, as all transactions lock orders.
_REMOVE = text(
    """
    WITH locked AS (
        SELECT id FROM orders
        WHERE user_id = ANY(:user_ids) AND (shipping_address IS NOT NULL OR cancel_note IS NOT NULL)
        ORDER BY id LIMIT :most FOR UPDATE
    )
    UPDATE orders
    SET shipping_address = NULL, cancel_note = NULL, version = version + 1, updated_at = clock_timestamp()
    FROM locked WHERE orders.id = locked.id
    RETURNING orders.id, orders.version
    """
)
# The stored results are orders, with the address.
_REMOVE_RESULTS = text("DELETE FROM idempotency_keys WHERE actor = ANY(:actors)")


def remove(session: Session, user_ids: Sequence[UUID], most: int) -> dict[UUID, int]:
    """Remove it from at most `most` orders of these users, and the stored results of the users' calls.

    Returns the new version of each order that changed, by id, so that the caller can invalidate the cached ones. A
    repetition changes nothing.
    """
    found = session.execute(_REMOVE, {"user_ids": list(user_ids), "most": most})
    changed = {row.id: row.version for row in found}
    session.execute(_REMOVE_RESULTS, {"actors": [str(user_id) for user_id in user_ids]})
    return changed
