"""Ten thousand mutations of a valid token, passed to the function that verifies tokens."""

from collections import Counter
from datetime import UTC, datetime
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.users import InvalidToken
from extensions.security.access_tokens import verify
from tests.jwt_mutations import mutations
from users import token_issuer

COUNT = 10_000
KEY = token_issuer.SigningKey.of(Ed25519PrivateKey.generate())
OTHER = token_issuer.SigningKey.of(Ed25519PrivateKey.generate())
KEYS = {KEY.kid: KEY.public, OTHER.kid: OTHER.public}


def valid_token():
    return token_issuer.issue(
        KEY, user_id=uuid4(), roles=["customer"], issued_at=datetime.now(UTC), token_id=uuid4(), session_id=uuid4()
    )


def test_no_mutated_token_is_accepted_or_causes_another_error():
    token = valid_token()
    assert isinstance(verify(token, KEYS).session_id, UUID)
    tried, accepted = Counter(), []
    for kind, mutation in mutations(token, KEY.public, COUNT, seed=2026):
        tried[kind] += 1
        try:
            verify(mutation, KEYS)
        except InvalidToken:
            continue
        accepted.append((kind, mutation))
    assert accepted == []
    assert tried.total() >= COUNT
    assert len(tried) >= 19


def test_a_token_that_names_another_key_than_its_own_is_refused():
    header, payload, _ = valid_token().split(".")
    named_otherwise = token_issuer.issue(
        token_issuer.SigningKey(KEY.private, OTHER.kid),
        user_id=uuid4(),
        roles=["admin"],
        issued_at=datetime.now(UTC),
        token_id=uuid4(),
    )
    for token in (named_otherwise, f"{header}.{payload}.{named_otherwise.rpartition('.')[2]}"):
        try:
            verify(token, KEYS)
        except InvalidToken:
            continue
        raise AssertionError(token)
