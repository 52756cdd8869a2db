"""Messages about webhooks: that one was disabled, and why. A disabled endpoint cannot say it itself."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid5

from sqlalchemy.orm import Session

from contracts.ids import new_id
from contracts.webhooks import DisabledReason
from extensions.storage.bulk import insert_rows
from notifications.models import Base

KIND = "webhook.disabled"
REASONS: Mapping[str, str] = {
    DisabledReason.GONE: "it responded that it is gone (410)",
    DisabledReason.FAILING: "all deliveries of the last five days failed",
    DisabledReason.BACKLOG: "too many deliveries were waiting for it",
    DisabledReason.NOT_ADMIN: "it received the events of the whole shop, and you are no longer an administrator",
}


def tell_disabled(session: Session, webhooks: Sequence[Mapping[str, Any]]) -> None:
    """Store a notification for the owner of each endpoint (`id`, `user_id`, `url`, `disabled_reason`)."""
    rows = []
    for webhook in webhooks:
        notice_id = new_id()
        rows.append(
            {
                "id": notice_id,
                "user_id": webhook["user_id"],
                "about_id": uuid5(webhook["id"], str(notice_id)),
                "order_id": None,
                "kind": KIND,
                "subject": "A webhook is disabled",
                "body": (
                    f"Your webhook {webhook['url']} receives nothing any more: {REASONS[webhook['disabled_reason']]}."
                    f" PATCH /webhooks/{webhook['id']} with is_enabled true switches it on again, and"
                    f" POST /webhooks/{webhook['id']}/replay sends what it missed."
                ),
                "in_app": True,
            }
        )
    insert_rows(session, Base.metadata.tables["notifications"], rows)
