"""The mails: each text in each language, with fields that try to break out."""

from decimal import Decimal
from email import message_from_bytes
from email.policy import default
from uuid import UUID

import pytest

from contracts.users import Language
from notifications.mail_rendering import render
from notifications.mail_texts import ENGLISH, REASONS, TEXTS, TURKISH
from notifications.templates import TEMPLATES

MAIL = UUID(int=7)
HOSTILE = "<script>alert(1)</script>{{ 7*7 }}\r\nBcc: all@example.com"
NAMES = (
    "order_id total_amount currency amount carrier tracking_number email token product_sku available threshold url id"
)
FIELDS = dict.fromkeys(NAMES.split(), HOSTILE) | {"expires_at": "2026-11-30T12:30:00Z"}


def mail(kind, language, fields):
    message = render(
        MAIL,
        kind,
        language,
        fields,
        sender="shop@example.com",
        recipient="ayse@example.com",
        shop_url="https://shop.example.com/",
    )
    return message_from_bytes(message.as_bytes(), policy=default)


def test_every_kind_has_a_text_in_every_language():
    assert set(ENGLISH) == set(TURKISH)
    assert {event.event_type for event in TEMPLATES} <= set(ENGLISH)
    assert set(TEXTS) == set(Language)
    assert set(REASONS["en"]) == set(REASONS["tr"])


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("kind", sorted(ENGLISH))
def test_fields_are_only_text(kind, language):
    for reason in ({"reason": "USER"}, {"disabled_reason": "GONE"}):
        message = mail(kind, str(language), FIELDS | reason)
        plain, html = (message.get_body((part,)).get_content() for part in ("plain", "html"))
        assert "<script" not in html
        assert "49" not in plain + message["Subject"]
        assert "{" not in plain.replace(HOSTILE.split("\r\n", maxsplit=1)[0], "").replace('{"token"', "")
        assert "Bcc" not in message
        assert "\n" not in message["Subject"]
        assert (message["Message-ID"], message["To"]) == (f"<{MAIL}@example.com>", "ayse@example.com")
        assert f'lang="{language}"' in html
        assert "https://shop.example.com//" not in plain


def test_an_unknown_language_is_english():
    fields = {"order_id": "1", "total_amount": str(Decimal("1.00")), "currency": "TRY"}
    for language in (None, "xx"):
        assert mail("order.confirmed", language, fields)["Subject"] == "Your order is confirmed"


@pytest.mark.parametrize("recipient", ["a@example.com\r\nBcc: b@example.com", "a", ""])
def test_an_address_that_is_none_is_refused(recipient):
    with pytest.raises(Exception, match=r".+"):
        render(
            MAIL, "order.delivered", "en", {"order_id": "1"}, sender="s@example.com", recipient=recipient, shop_url="x"
        )
