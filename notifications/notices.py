"""Messages about webhooks: that one was disabled, and why. A disabled endpoint cannot say it itself."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid5

from sqlalchemy import select
from sqlalchemy.orm import Session

from contracts.ids import new_id
from contracts.webhooks import DisabledReason
from extensions.storage.bulk import insert_rows
from notifications import mails
from notifications.mail_texts import WEBHOOK_DISABLED
from notifications.models import Base, Recipient

REASONS: Mapping[str, str] = {
    DisabledReason.GONE: "it responded that it is gone (410)",
    DisabledReason.FAILING: "all deliveries of the last five days failed",
    DisabledReason.BACKLOG: "too many deliveries were waiting for it",
    DisabledReason.NOT_ADMIN: "it received the events of the whole shop, and you are no longer an administrator",
}


def tell_disabled(session: Session, webhooks: Sequence[Mapping[str, Any]], *, with_mails: bool) -> None:
    """Tell the owner of each endpoint (`id`, `user_id`, `url`, `disabled_reason`), in the list and by mail."""
    rows: list[dict[str, Any]] = []
    for webhook in webhooks:
        notice_id = new_id()
        rows.append(
            {
                "id": notice_id,
                "user_id": webhook["user_id"],
                "about_id": uuid5(webhook["id"], str(notice_id)),
                "order_id": None,
                "kind": WEBHOOK_DISABLED,
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
    if rows and with_mails:
        _mail(session, webhooks, rows)


def _mail(session: Session, webhooks: Sequence[Mapping[str, Any]], notices: Sequence[Mapping[str, Any]]) -> None:
    owners = {webhook["user_id"] for webhook in webhooks}
    found = session.execute(
        select(Recipient.user_id, Recipient.email, Recipient.language).where(Recipient.user_id.in_(owners))
    )
    known = {row.user_id: row for row in found}
    rows = []
    for webhook, notice in zip(webhooks, notices, strict=True):
        owner = known.get(webhook["user_id"])
        fields = {"id": str(webhook["id"]), "url": webhook["url"], "disabled_reason": str(webhook["disabled_reason"])}
        recipient, language = (owner.email, owner.language) if owner else (None, None)
        rows.append(
            mails.mail_row(WEBHOOK_DISABLED, notice["about_id"], webhook["user_id"], recipient, language, fields)
        )
    mails.store(session, rows)
