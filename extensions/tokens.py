"""Access tokens as everybody can check them: with the public key alone. Only users can make them (users/tokens.py)."""

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from contracts.users import (
    ACCESS_TOKEN_ALGORITHM,
    ACCESS_TOKEN_AUDIENCE,
    ACCESS_TOKEN_ISSUER,
    ACCESS_TOKEN_TYPE,
    InvalidToken,
    Role,
)

_REQUIRED = ["iss", "aud", "sub", "roles", "iat", "exp", "jti"]


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a genuine, unexpired access token says. `issued_at` and `expires_at` are whole seconds, in UTC.

    Whether the account still stands is not in it: compare `issued_at` with the `at` of user.updated.
    """

    user_id: UUID
    roles: tuple[Role, ...]
    issued_at: datetime
    expires_at: datetime
    token_id: str


def load_public_key(path: str | Path) -> Ed25519PublicKey:
    """Read an Ed25519 public key from a PEM file; raises TypeError if there is another kind of key in it."""
    key = load_pem_public_key(Path(path).read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        message = f"{path} must hold an Ed25519 public key in PEM; set JWT_PUBLIC_KEY_FILE to such a file"
        raise TypeError(message)
    return key


def verify(token: str, key: Ed25519PublicKey) -> AccessToken:
    """Return what `token` says.

    Raises InvalidToken unless `key` signed it as an access token of ours that has not expired.
    """
    try:
        decoded = jwt.decode_complete(
            token,
            key,
            algorithms=[ACCESS_TOKEN_ALGORITHM],
            issuer=ACCESS_TOKEN_ISSUER,
            audience=ACCESS_TOKEN_AUDIENCE,
            # The clock of the machine that issued it may be ahead of ours: iat is no reason to refuse it.
            options={"require": _REQUIRED, "verify_iat": False},
        )
        if decoded["header"].get("typ", "").lower() != ACCESS_TOKEN_TYPE:
            raise InvalidToken
        return _read(decoded["payload"])
    # A token is a stranger's text: nested too deep, with numbers too large, with types that are not ours.
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InvalidToken from None


def _read(claims: dict[str, Any]) -> AccessToken:
    return AccessToken(
        user_id=UUID(claims["sub"]),
        roles=tuple(Role(role) for role in claims["roles"]),
        issued_at=datetime.fromtimestamp(claims["iat"], UTC),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        token_id=str(claims["jti"]),
    )


def jwks(key: Ed25519PublicKey) -> dict[str, list[dict[str, str]]]:
    """Return the JSON Web Key Set (RFC 7517, RFC 8037) that lets others verify our access tokens."""
    public = {**_public_members(key), "kid": key_id(key), "use": "sig", "alg": ACCESS_TOKEN_ALGORITHM}
    return {"keys": [public]}


def key_id(key: Ed25519PublicKey) -> str:
    """Return the key's RFC 7638 thumbprint, the `kid` of the tokens that it verifies."""
    canonical = json.dumps(_public_members(key), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _public_members(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
