"""Signatures of webhooks: Standard Webhooks 1.0.0, symmetric (v1).

The header `webhook-signature` has one signature for each secret that is valid: two after a rotation, until the old
secret expires. Each is HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`, with the bytes that the secret
encodes.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32
"""The standard permits 24 to 64."""


def new_secret() -> str:
    """Return a random secret in the form of the standard."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def headers(message_id: str, timestamp: int, body: bytes, valid_secrets: Sequence[str]) -> Mapping[str, str]:
    """Return the headers of an attempt. `timestamp` is that of the attempt, in seconds since 1970."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(secret, message_id, timestamp, body) for secret in valid_secrets),
    }


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return `v1,<base64>`."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"
