"""Mails as messages: text and HTML, from the texts of mail_texts.py and the templates of mail_templates/."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

import css_inline
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape

from contracts.users import Language
from notifications.mail_texts import CLOSINGS, GREETINGS, REASONS, TEXTS

# Texts are rendered as plain text. The HTML template then escapes them.
_TEXTS = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701  (see above)
_MAILS = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("mail_templates")),
    autoescape=select_autoescape(["html.j2"]),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)
_BLANKS = re.compile(r"\s+")


def render(
    mail_id: UUID,
    kind: str,
    language: str | None,
    fields: Mapping[str, Any],
    *,
    sender: str,
    recipient: str,
    shop_url: str,
) -> EmailMessage:
    """Return the mail. Its Message-ID is the same each time."""
    spoken = language if language is not None and language in TEXTS else str(Language.ENGLISH)
    values = _values(spoken, fields) | {"shop_url": shop_url.rstrip("/")}
    text = TEXTS[spoken][kind]
    subject = _BLANKS.sub(" ", _template(text.subject).render(values)).strip()
    paragraphs = [rendered for one in text.paragraphs if (rendered := _template(one).render(values)).strip()]
    layout = {
        "language": str(spoken),
        "subject": subject,
        "greeting": GREETINGS[spoken],
        "paragraphs": paragraphs,
        "closing": CLOSINGS[spoken],
    }
    message = EmailMessage(policy=SMTP)
    message["From"] = _address(sender)
    message["To"] = _address(recipient)
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{mail_id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message["Content-Language"] = str(spoken)
    message.set_content(_MAILS.get_template("mail.txt.j2").render(layout))
    html = _MAILS.get_template("mail.html.j2").render(layout)
    message.add_alternative(css_inline.inline(html, load_remote_stylesheets=False), subtype="html")
    return message


def _values(language: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    values = {"carrier": None, "tracking_number": None, "amount": None, "currency": None, **fields}
    if reason := fields.get("reason") or fields.get("disabled_reason"):
        values["reason_in_words"] = REASONS[language].get(reason, reason)
    if expires_at := fields.get("expires_at"):
        values["expires_at"] = datetime.fromisoformat(expires_at).strftime("%Y-%m-%d %H:%M")
    return values


def _address(text: str) -> Address:
    """Return an address without a display name. Raises ValueError for one that cannot stand in a header."""
    return Address(addr_spec=text)


@lru_cache
def _template(text: str) -> Template:
    return _TEXTS.from_string(text)
