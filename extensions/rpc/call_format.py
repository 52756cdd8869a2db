"""The messages of RPC calls in Nameko's wire format: arguments, results, errors, and how long a caller waits."""

import json
import logging
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import amqp
from nameko.exceptions import serialize

from contracts.base import Replayed
from contracts.errors import InternalError, InvalidResult, ServiceError
from extensions.messaging.inbound import Undecodable

log = logging.getLogger(__name__)


def budget_of(message: amqp.Message) -> float | None:
    """Return how many seconds the caller of a call waits for its result; None if it does not say."""
    expiration = str(message.properties.get("expiration") or "")
    return int(expiration) / 1000 if expiration.isdigit() else None


def decode_call(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call. Raises Undecodable, whose text says what is wrong."""
    try:
        call = _decode(body.decode() if body else "")
    except RecursionError:
        raise Undecodable("the body is no JSON: it is nested too deep") from None
    except ValueError as error:  # no JSON, no UTF-8, or an integer of thousands of digits
        raise Undecodable(f"the body is no JSON: {error}") from None
    args, kwargs = (call.get("args"), call.get("kwargs")) if isinstance(call, dict) else (None, None)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise Undecodable("the body is no call: that is an object with `args`, a list, and `kwargs`, an object")
    return args, kwargs


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def _plain(value: Any) -> str:
    """Return a UUID, a Decimal, a date or a datetime as text. Raises TypeError for other types."""
    if isinstance(value, UUID | Decimal | date):  # a datetime is a date
        return str(value)
    raise TypeError(f"a {type(value).__name__} is no JSON")


_encode = json.JSONEncoder(default=_plain, allow_nan=False).encode


def encode_reply(method: str, result: Any, error: BaseException | None) -> str:
    """Return the body of a reply. If the result cannot be encoded as JSON, the reply is InvalidResult."""
    try:
        return _encode({"result": result, "error": _serialize(error), "replayed": isinstance(result, Replayed)})
    except Exception:  # the result of a method may have keys that are no text, cycles, or NaN
        log.exception("%s was called, and its result is no JSON", method)
    return _encode({"result": None, "error": _serialize(InvalidResult()), "replayed": False})


def _serialize(error: BaseException | None) -> dict[str, Any] | None:
    if error is None:
        return None
    if not isinstance(error, ServiceError):
        error = InternalError()
    return {**serialize(error), "problem": error.to_wire()}
