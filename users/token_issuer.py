"""Signed access tokens, and opaque refresh tokens that are replaced at each use."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from contracts.users import (
    ACCESS_TOKEN_ALGORITHM,
    ACCESS_TOKEN_AUDIENCE,
    ACCESS_TOKEN_ISSUER,
    ACCESS_TOKEN_SECONDS,
    ACCESS_TOKEN_TYPE,
)
from extensions.security.access_tokens import key_id

_SECRET_BYTES = 32
_PRIVATE_PEM = re.compile(rb"-----BEGIN PRIVATE KEY-----.+?-----END PRIVATE KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private key that signs access tokens, and the id of its public half."""

    private: Ed25519PrivateKey
    kid: str

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> "SigningKey":
        """Return the signing key for `private`."""
        return cls(private, key_id(private.public_key()))

    @property
    def public(self) -> Ed25519PublicKey:
        """The public key."""
        return self.private.public_key()


def load_signing_keys(path: str | Path) -> tuple[SigningKey, ...]:
    """Read the Ed25519 private keys of a PEM file. The first one signs; the others are retired.

    Raises TypeError if the file has no such key or a key of another kind.
    """
    keys = [load_pem_private_key(block, password=None) for block in _PRIVATE_PEM.findall(Path(path).read_bytes())]
    ours = [SigningKey.of(key) for key in keys if isinstance(key, Ed25519PrivateKey)]
    if not ours or len(ours) < len(keys):
        message = f"{path} must hold Ed25519 private keys in PEM; set JWT_PRIVATE_KEY_FILE to such a file"
        raise TypeError(message)
    return tuple(ours)


def issue(
    key: SigningKey,
    *,
    user_id: UUID,
    roles: Sequence[str],
    issued_at: datetime,
    token_id: UUID,
    session_id: UUID | None = None,
    email_verified: bool = False,
) -> str:
    """Return a signed access token. The same arguments give the same bytes, as Ed25519 is deterministic."""
    issued = int(issued_at.timestamp())
    claims = {
        "iss": ACCESS_TOKEN_ISSUER,
        "aud": ACCESS_TOKEN_AUDIENCE,
        "sub": str(user_id),
        "roles": list(roles),
        "iat": issued,
        "exp": issued + ACCESS_TOKEN_SECONDS,
        "jti": str(token_id),
    }
    if session_id is not None:
        claims["sid"] = str(session_id)
    if email_verified:
        claims["email_verified"] = True
    headers = {"typ": ACCESS_TOKEN_TYPE, "kid": key.kid}
    return jwt.encode(claims, key.private, algorithm=ACCESS_TOKEN_ALGORITHM, headers=headers)


def new_refresh_token() -> str:
    """Return 256 random bits as 43 characters."""
    return _text(secrets.token_bytes(_SECRET_BYTES))


def first_refresh_token(salt: bytes, known_to_client: str) -> str:
    """Return the refresh token of a registration with an idempotency key; a retry gets the same one.

    It is computed from a random salt, which only the database has, and from what only the client has: its key and its
    password, as a slow hash that is not stored. A stolen signing key is of no use for it, nor is a stolen database.
    """
    return _text(hmac.digest(salt, b"first refresh token\n" + known_to_client.encode(), "sha256"))


def new_salt() -> bytes:
    """Return a random salt for `first_refresh_token` and `successor`."""
    return secrets.token_bytes(_SECRET_BYTES)


def successor(refresh_token: str, salt: bytes) -> str:
    """Return the refresh token that replaces `refresh_token`.

    It is computed from the old token, which only the client has, and the salt, which only the database has. So neither
    a stolen database nor a stolen old token is enough to compute it.
    """
    return _text(hmac.digest(salt, refresh_token.encode(), "sha256"))


def fingerprint(text: str) -> bytes:
    """Return the SHA-256 of a refresh token or of the token of a mail, which is stored.

    A token of 256 random bits needs no slow hash.
    """
    return hashlib.sha256(text.encode()).digest()


def _text(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")
