"""The rules of webhooks, and their signatures."""

import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from contracts.ids import new_id
from notifications import rules, signatures
from notifications.rules import Attempt

USER, OTHER = new_id(), new_id()
NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def webhook(scope="OWN", events=("*",), user_id=USER):
    return {"scope": scope, "events": events, "user_id": user_id}


@pytest.mark.parametrize(
    ("subscribed", "event", "expected"),
    [
        (["*"], "order.created", True),
        (["*"], "inventory.stock_low", True),
        (["order.*"], "order.created", True),
        (["order.*"], "payment.refunded", False),
        (["order.created"], "order.confirmed", False),
        (["payment.refunded", "order.confirmed"], "order.confirmed", True),
        (["payment.*"], "webhook.test", True),
    ],
)
def test_subscriptions(subscribed, event, expected):
    assert rules.is_subscribed(subscribed, event) is expected


@pytest.mark.parametrize(
    ("endpoint", "event", "owner", "expected"),
    [
        (webhook(), "order.created", USER, True),
        (webhook(), "order.created", OTHER, False),
        (webhook(), "inventory.stock_low", None, False),
        (webhook(), "payment.refunded", None, False),
        (webhook("SHOP"), "order.created", OTHER, True),
        (webhook("SHOP"), "order.created", USER, True),
        (webhook("SHOP"), "inventory.stock_low", None, True),
        (webhook("SHOP"), "payment.refunded", None, True),
        (webhook("SHOP", ["order.*"]), "inventory.stock_low", None, False),
    ],
)
def test_who_receives_what(endpoint, event, owner, expected):
    assert rules.receives(endpoint, event, owner) is expected


def test_the_pauses_are_those_promised():
    promised = [5, 300, 1800, 7200, 18_000, 36_000, 36_000]
    for attempts, seconds in enumerate(promised, 1):
        found = [rules.retry_pause(attempts) for _ in range(50)]
        assert all(seconds <= one <= seconds * 1.1 for one in found)
        assert len(set(found)) > 1, "without jitter"
    assert rules.retry_pause(len(promised) + 1) is None


@pytest.mark.parametrize(
    ("attempts", "retry_after", "least", "most"),
    [(1, 2.0, 5, 5.5), (1, 60.0, 60, 60), (1, 9999.0, 300, 300), (3, 60.0, 1800, 1980), (7, 99_999.0, 36_000, 39_600)],
)
def test_retry_after_holds_within_the_next_step(attempts, retry_after, least, most):
    assert least <= rules.retry_pause(attempts, retry_after) <= most


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("120", 120),
        (" 5 ", 5),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("\u0665", None),
        ("9" * 400, 999_999_999),
        ("Mon, 30 Nov 2026 12:01:00 GMT", 60),
        ("Mon, 30 Nov 2026 11:00:00 GMT", 0),
        ("Mon, 99 Nov 2026 11:00:00 GMT", None),
    ],
)
def test_the_header_retry_after(header, expected):
    assert rules.parse_retry_after(header, NOW) == expected


@pytest.mark.parametrize(
    ("failures", "status", "retry_after", "expected"),
    [
        (1, 500, None, 1),
        (4, 500, None, 8),
        (40, None, None, 300),
        (1, 429, 30.0, 30),
        (1, 500, 30.0, 1),
        (1, 503, 9e9, 300),
    ],
)
def test_a_failing_endpoint_rests(failures, status, retry_after, expected):
    attempt = Attempt(new_id(), 1, 5, status=status, retry_after=retry_after)
    assert rules.endpoint_pause(failures, [attempt]) == expected


@pytest.mark.parametrize("status", [*range(100, 200, 33), *range(300, 600, 9), None])
def test_only_2xx_is_a_success(status):
    attempt = Attempt(new_id(), 1, 5, status=status, problem="x" * 9000)
    assert not attempt.is_success
    assert attempt.error
    assert len(attempt.error) <= rules.MAX_ERROR
    assert Attempt(new_id(), 1, 5, status=204).error is None


@pytest.mark.parametrize("size", [24, 32, 64])
@pytest.mark.parametrize("body", [b"{}", "şİ".encode(), b"\x00.\n", b"x" * 50_000])
def test_the_reference_library_signs_the_same(size, body):
    secret = signatures.PREFIX + base64.b64encode(bytes(range(size))).decode()
    message_id, at = str(new_id()), datetime(2026, 11, 30, tzinfo=UTC)
    signed = signatures.sign(secret, message_id, int(at.timestamp()), body)
    if body.isascii():
        assert signed == Webhook(secret).sign(message_id, at, body.decode())
    assert signed.startswith("v1,")


def test_secrets_are_as_the_standard_wants_them():
    made = {signatures.new_secret() for _ in range(100)}
    assert len(made) == 100
    for secret in made:
        assert secret.startswith("whsec_")
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
