"""The query of the streams of notifications: what was added after a position, for several users at once.

A position is the transaction that wrote the notification, and its id. Transactions do not commit in the order of their
ids. So a notification is returned only when every transaction with a lower id has ended: nothing can then be added
below a position that was returned. A long transaction delays the streams, and loses nothing.
"""

from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session, aliased

from contracts.notifications import (
    NewNotification,
    NewNotifications,
    NotificationPositions,
    NotificationView,
)
from notifications.models import Notification

MAX_OF_USER = 100
LAST_ID = UUID(int=2**128 - 1)

_HORIZON = "(pg_snapshot_xmin(pg_current_snapshot())::text)::bigint"
_NEW = text(
    f"""
    SELECT new.id
    FROM unnest(CAST(:users AS uuid[]), CAST(:xacts AS bigint[]), CAST(:ids AS uuid[])) AS known (user_id, xact, id)
    CROSS JOIN LATERAL (
        SELECT id FROM notifications
        WHERE user_id = known.user_id AND xact IS NOT NULL AND (xact, id) > (known.xact, known.id) AND xact < {_HORIZON}
            AND in_app
        ORDER BY xact, id LIMIT {MAX_OF_USER}
    ) AS new
    """  # noqa: S608  (constants of this file)
).columns(id=Notification.id.type)


def list_new(session: Session, wanted: NotificationPositions) -> NewNotifications:
    """Return the notifications of each user after a position, at most MAX_OF_USER of each, and the present position."""
    horizon = session.scalar(text(f"SELECT {_HORIZON}"))
    values = {
        "users": [each.user_id for each in wanted.users],
        "xacts": [each.xact for each in wanted.users],
        "ids": [each.id for each in wanted.users],
    }
    new = _NEW.subquery()
    each = aliased(Notification)
    statement = select(each).join(new, new.c.id == each.id).order_by(each.user_id, each.xact, each.id)
    rows = session.scalars(statement, values).all() if wanted.users else []
    items = [
        NewNotification(user_id=row.user_id, xact=row.xact or 0, notification=NotificationView.model_validate(row))
        for row in rows
    ]
    counts: dict[UUID, int] = {}
    for row in rows:
        counts[row.user_id] = counts.get(row.user_id, 0) + 1
    is_complete = all(count < MAX_OF_USER for count in counts.values())
    return NewNotifications(items=tuple(items), xact=(horizon or 1) - 1, id=LAST_ID, is_complete=is_complete)
