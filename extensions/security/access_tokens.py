"""Verification of access tokens with the public key. Only the users service can issue them (users/token_issuer.py)."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
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
    ACCESS_TOKEN_SECONDS,
    ACCESS_TOKEN_TYPE,
    InvalidToken,
    NotAnAccessToken,
    Role,
    TokenExpired,
)

PublicKeys = Mapping[str, Ed25519PublicKey]
"""The keys that verify access tokens, by `kid`; more than one during a rotation."""

_REQUIRED = ["iss", "aud", "sub", "roles", "iat", "exp", "jti"]
_PUBLIC_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """The content of a valid access token. `issued_at` and `expires_at` are whole seconds, in UTC.

    It does not tell whether the account is still active: compare `issued_at` with the `at` of user.updated.
    """

    user_id: UUID
    roles: tuple[Role, ...]
    issued_at: datetime
    expires_at: datetime
    session_id: UUID | None = None
    """The login session of the token."""
    email_verified: bool = False
    """Whether the address of the user was verified when the token was issued."""


def load_public_keys(path: str | Path) -> PublicKeys:
    """Read the Ed25519 public keys of a PEM file. Raises TypeError if it has none, or a key of another kind."""
    keys = [load_pem_public_key(block) for block in _PUBLIC_PEM.findall(Path(path).read_bytes())]
    ours = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not ours or len(ours) < len(keys):
        message = f"{path} must hold Ed25519 public keys in PEM; set JWT_PUBLIC_KEY_FILE to such a file"
        raise TypeError(message)
    return {key_id(key): key for key in ours}


def verify(token: str, keys: PublicKeys) -> AccessToken:
    """Return the content of `token`.

    Raises InvalidToken unless it is an access token of this suite signed by one of `keys`, TokenExpired if it has
    expired.
    """
    try:
        if "." not in token:  # a refresh token contains no dot
            raise NotAnAccessToken
        _check_signature_spelling(token)
        decoded = jwt.decode_complete(
            token,
            _key_for(jwt.get_unverified_header(token), keys),
            algorithms=[ACCESS_TOKEN_ALGORITHM],
            issuer=ACCESS_TOKEN_ISSUER,
            audience=ACCESS_TOKEN_AUDIENCE,
            # The clock of the issuing machine may be ahead of ours, so a future iat is accepted.
            options={"require": _REQUIRED, "verify_iat": False},
        )
        return _read(decoded["payload"])
    except jwt.ExpiredSignatureError:  # PyJWT verifies the signature before the expiry
        raise TokenExpired from None
    # A token is untrusted input: it may be nested too deep, or have huge numbers or unexpected types.
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InvalidToken from None


def _check_signature_spelling(token: str) -> None:
    """Refuse other encodings of the same signature: they would bypass data that is stored by token string."""
    signature = token.rpartition(".")[2]
    if _base64url(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))) != signature:
        raise InvalidToken


def _key_for(header: dict[str, Any], keys: PublicKeys) -> Ed25519PublicKey:
    """Return the key that the header names. Any other header than ours is refused: no `jwk`, no `jku`, no `crit`."""
    kid = header.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None or header != {"alg": ACCESS_TOKEN_ALGORITHM, "typ": ACCESS_TOKEN_TYPE, "kid": kid}:
        raise InvalidToken
    return key


def _read(claims: dict[str, Any]) -> AccessToken:
    issued, expires = claims["iat"], claims["exp"]
    # PyJWT rounds and converts. Our tokens have integers, and no longer lifetime than ACCESS_TOKEN_SECONDS.
    if type(issued) is not int or type(expires) is not int or expires - issued > ACCESS_TOKEN_SECONDS:
        raise InvalidToken
    return AccessToken(
        user_id=UUID(claims["sub"]),
        roles=tuple(Role(role) for role in claims["roles"]),
        issued_at=datetime.fromtimestamp(issued, UTC),
        expires_at=datetime.fromtimestamp(expires, UTC),
        session_id=UUID(claims["sid"]) if "sid" in claims else None,
        email_verified=claims.get("email_verified") is True,
    )


def jwks(keys: Iterable[Ed25519PublicKey]) -> dict[str, list[dict[str, str]]]:
    """Return the JSON Web Key Set (RFC 7517, RFC 8037) for verifying our access tokens."""
    about = {"use": "sig", "alg": ACCESS_TOKEN_ALGORITHM}
    return {"keys": [{**_public_members(key), "kid": key_id(key), **about} for key in keys]}


def key_id(key: Ed25519PublicKey) -> str:
    """Return the RFC 7638 thumbprint of the key: the `kid` of the tokens that it verifies."""
    canonical = json.dumps(_public_members(key), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _public_members(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
