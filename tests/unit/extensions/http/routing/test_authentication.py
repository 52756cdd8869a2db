from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from contracts.users import InvalidToken, Role, UserInactive, UserUpdated
from extensions.http.routing import authentication as auth
from extensions.http.routing.authentication import VerifiedTokens
from extensions.security.access_tokens import AccessToken

USER = uuid4()
KEYS = {}


@pytest.fixture(autouse=True)
def now():
    """The time of the test. On a slow machine it runs long after this module was imported."""
    global NOW  # noqa: PLW0603  (for the defaults below)
    NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def issued(monkeypatch):
    """Replaces the verification of signatures: tokens by their text, and `verified` records each verification."""
    known, verified = {}, []

    def verify(text, _keys):
        verified.append(text)
        if text not in known:
            raise InvalidToken
        return known[text]

    monkeypatch.setattr(auth.access_tokens, "verify", verify)
    known["verified"] = verified
    return known


def access_token(expires_in=900, issued_at=None):
    return AccessToken(USER, (Role.CUSTOMER,), issued_at or NOW, NOW + timedelta(seconds=expires_in), "t")


def updated(*roles, is_active=True, at=None):
    at = at or NOW + timedelta(seconds=1)
    return UserUpdated(user_id=USER, roles=roles or (Role.CUSTOMER,), is_active=is_active, at=at)


def test_a_valid_token_is_verified_once(issued):
    tokens = VerifiedTokens(lambda: KEYS)
    issued["a"] = access_token()
    assert tokens.verify("a") == tokens.verify("a") == issued["a"]
    assert issued["verified"] == ["a"]


def test_an_invalid_token_is_not_cached(issued):
    tokens = VerifiedTokens(lambda: KEYS)
    for _ in range(2):
        with pytest.raises(InvalidToken):
            tokens.verify("wrong")
    assert issued["verified"] == ["wrong", "wrong"]


def test_an_expired_token_is_removed_from_the_cache(issued):
    tokens = VerifiedTokens(lambda: KEYS)
    issued["a"] = access_token(expires_in=-1)
    tokens.verify("a")  # the replacement for the verification ignores the time
    del issued["a"]
    with pytest.raises(InvalidToken):
        tokens.verify("a")


def test_the_size_of_the_cache_is_limited(issued):
    tokens = VerifiedTokens(lambda: KEYS, size=3)
    for text in "abcde":
        issued[text] = access_token()
        tokens.verify(text)
    assert list(tokens._verified) == ["c", "d", "e"]


def test_a_role_change_applies_to_tokens_issued_before(issued):
    tokens = VerifiedTokens(lambda: KEYS)
    issued["a"] = access_token()
    tokens.verify("a")
    tokens.update(updated(Role.CUSTOMER, Role.ADMIN))
    assert tokens.verify("a").roles == (Role.CUSTOMER, Role.ADMIN)


def test_a_deactivated_user_is_refused(issued):
    tokens = VerifiedTokens(lambda: KEYS)
    issued["a"] = access_token()
    tokens.update(updated(is_active=False))
    with pytest.raises(UserInactive):
        tokens.verify("a")


def test_an_update_does_not_apply_to_a_later_token(issued):
    tokens = VerifiedTokens(lambda: KEYS)
    issued["a"] = access_token(issued_at=NOW + timedelta(seconds=2))
    tokens.update(updated(is_active=False))
    assert tokens.verify("a") == issued["a"]


def test_an_update_applies_to_a_token_of_the_same_second(issued):
    tokens = VerifiedTokens(lambda: KEYS)
    issued["a"] = access_token(issued_at=NOW)
    tokens.update(updated(is_active=False, at=NOW + timedelta(milliseconds=300)))
    with pytest.raises(UserInactive):
        tokens.verify("a")


def test_updates_may_arrive_in_any_order(issued):
    tokens = VerifiedTokens(lambda: KEYS)
    issued["a"] = access_token()
    tokens.update(updated(is_active=True, at=NOW + timedelta(seconds=5)))
    tokens.update(updated(is_active=False, at=NOW + timedelta(seconds=1)))
    assert tokens.verify("a").roles == (Role.CUSTOMER,)


def test_updates_older_than_every_token_are_dropped(issued):
    tokens = VerifiedTokens(lambda: KEYS)
    tokens.update(updated(at=NOW - timedelta(minutes=16)))
    assert not tokens._updates
