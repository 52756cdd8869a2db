"""Access tokens as everybody can check them: with the public key alone. Only users can make them (users/tokens.py)."""

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
"""The keys that verify access tokens, by their `kid`: more than one while they are being rotated."""

_REQUIRED = ["iss", "aud", "sub", "roles", "iat", "exp", "jti"]
_PUBLIC_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a genuine, unexpired access token says. `issued_at` and `expires_at` are whole seconds, in UTC.

    Whether the account still stands is not in it: compare `issued_at` with the `at` of user.updated.
    """

    user_id: UUID
    roles: tuple[Role, ...]
    issued_at: datetime
    expires_at: datetime
    session_id: UUID | None = None
    """The login that it belongs to."""


def load_public_keys(path: str | Path) -> PublicKeys:
    """Read the Ed25519 public keys of a PEM file; raises TypeError if there is none or another kind of key in it."""
    keys = [load_pem_public_key(block) for block in _PUBLIC_PEM.findall(Path(path).read_bytes())]
    ours = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not ours or len(ours) < len(keys):
        message = f"{path} must hold Ed25519 public keys in PEM; set JWT_PUBLIC_KEY_FILE to such a file"
        raise TypeError(message)
    return {key_id(key): key for key in ours}


def verify(token: str, keys: PublicKeys) -> AccessToken:
    """Return what `token` says.

    Raises InvalidToken unless one of `keys` signed it as an access token of ours, TokenExpired if that is over.
    """
    try:
        if "." not in token:  # refresh tokens have none
            raise NotAnAccessToken
        _check_signature_spelling(token)
        decoded = jwt.decode_complete(
            token,
            _key_for(jwt.get_unverified_header(token), keys),
            algorithms=[ACCESS_TOKEN_ALGORITHM],
            issuer=ACCESS_TOKEN_ISSUER,
            audience=ACCESS_TOKEN_AUDIENCE,
            # The clock of the machine that issued it may be ahead of ours: iat is no reason to refuse it.
            options={"require": _REQUIRED, "verify_iat": False},
        )
        return _read(decoded["payload"])
    except jwt.ExpiredSignatureError:  # the signature itself was looked at before
        raise TokenExpired from None
    # A token is a stranger's text: nested too deep, with numbers too large, with types that are not ours.
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InvalidToken from None


def _check_signature_spelling(token: str) -> None:
    """Refuse other spellings of the same signature: one token is one string, or what is kept by it can be evaded."""
    signature = token.rpartition(".")[2]
    if _base64url(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))) != signature:
        raise InvalidToken


def _key_for(header: dict[str, Any], keys: PublicKeys) -> Ed25519PublicKey:
    """Return the key that a token names. Its header is no more and no less than ours: no `jwk`, no `jku`, no `crit`."""
    kid = header.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None or header != {"alg": ACCESS_TOKEN_ALGORITHM, "typ": ACCESS_TOKEN_TYPE, "kid": kid}:
        raise InvalidToken
    return key


def _read(claims: dict[str, Any]) -> AccessToken:
    issued, expires = claims["iat"], claims["exp"]
    # PyJWT rounds and converts; we state whole numbers, and no longer life than users gives.
    if type(issued) is not int or type(expires) is not int or expires - issued > ACCESS_TOKEN_SECONDS:
        raise InvalidToken
    return AccessToken(
        user_id=UUID(claims["sub"]),
        roles=tuple(Role(role) for role in claims["roles"]),
        issued_at=datetime.fromtimestamp(issued, UTC),
        expires_at=datetime.fromtimestamp(expires, UTC),
        session_id=UUID(claims["sid"]) if "sid" in claims else None,
    )


def jwks(keys: Iterable[Ed25519PublicKey]) -> dict[str, list[dict[str, str]]]:
    """Return the JSON Web Key Set (RFC 7517, RFC 8037) that lets others verify our access tokens."""
    about = {"use": "sig", "alg": ACCESS_TOKEN_ALGORITHM}
    return {"keys": [{**_public_members(key), "kid": key_id(key), **about} for key in keys]}


def key_id(key: Ed25519PublicKey) -> str:
    """Return the key's RFC 7638 thumbprint, the `kid` of the tokens that it verifies."""
    canonical = json.dumps(_public_members(key), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _public_members(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
