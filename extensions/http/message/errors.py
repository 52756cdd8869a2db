"""Errors of the HTTP layer, and how every ServiceError becomes a response: RFC 9457 problem details."""

from collections.abc import Iterable
from typing import Any

from contracts.errors import FieldError, InternalError, NotFound, Overloaded, RateLimited, ServiceError
from contracts.users import InvalidToken, OtherAuthorization, TokenRevoked

PROBLEM_TYPE = "application/problem+json"
OVERLOAD_RETRY_SECONDS = 1
REPLAYED = {"Idempotent-Replayed": "true"}
"""Marks a response as the stored one of the first request with this idempotency key."""


class MalformedJson(ServiceError):
    """The body is not JSON, or not within our limits."""

    code, status, detail = "MALFORMED_JSON", 400, "The body is not valid JSON."


class MalformedRequest(ServiceError):
    """The request violates HTTP/1.1, or exceeds a size limit of its head."""

    code, status, detail = "VALIDATION_ERROR", 400, "This is not an HTTP/1.1 request."

    def __init__(self, detail: str | None = None) -> None:
        """A VALIDATION_ERROR always names a field; here that is `request`."""
        super().__init__(detail)
        self.errors = (FieldError("request", str(self)),)


class PathNotFound(NotFound):
    """No route has this path."""

    detail = "There is nothing at this path. /docs lists what there is."


class MethodNotAllowed(ServiceError):
    """The path exists, but has no route for this method."""

    code, status = "METHOD_NOT_ALLOWED", 405

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"This path takes {self.allowed}.")


class NotAcceptable(ServiceError):
    """The Accept header excludes the media type of the response."""

    code, status, detail = "NOT_ACCEPTABLE", 406, "The response is application/json; the Accept header must allow it."

    @classmethod
    def of(cls, produced: str) -> "NotAcceptable":
        """Name the media type that the route produces."""
        return cls(f"The response is {produced}; the Accept header must allow it.")


class RequestTimeout(ServiceError):
    """The request did not arrive in time."""

    code, status, detail = "REQUEST_TIMEOUT", 408, "The request took too long to arrive. Send it again."


class PayloadTooLarge(ServiceError):
    """The body exceeds the limit."""

    code, status, detail = "PAYLOAD_TOO_LARGE", 413, "The body is too large."

    @classmethod
    def over(cls, limit: int) -> "PayloadTooLarge":
        """State the limit, in bytes."""
        return cls(f"The body has more than the {limit} bytes that are allowed.")


class TooManyAtOnce(ServiceError):
    """One user has too many requests in flight."""

    code, status = "RATE_LIMITED", 429
    policy = "at_once"
    allowed = 0

    @classmethod
    def over(cls, limit: int) -> "TooManyAtOnce":
        """State the limit."""
        detail = f"More than {limit} of your requests are under way. Nothing was done; try again shortly."
        error = cls(detail, retry_after=OVERLOAD_RETRY_SECONDS)
        error.allowed = limit
        return error


class UnsupportedMediaType(ServiceError):
    """The Content-Type of the body is not JSON in UTF-8."""

    code, status = "UNSUPPORTED_MEDIA_TYPE", 415
    detail = "Send JSON in UTF-8, and say so: Content-Type: application/json."


def gateway_overloaded() -> Overloaded:
    """Return the error for a request that the gateway itself cannot serve in time."""
    detail = "The gateway has too much to do. Nothing was done; try again shortly."
    return Overloaded(detail, retry_after=OVERLOAD_RETRY_SECONDS)


def problem(error: ServiceError, request_id: str, instance: str) -> dict[str, Any]:
    """Return the problem details of `error`. An internal error never reveals its cause."""
    if error.status == InternalError.status:
        error = InternalError()
    body: dict[str, Any] = {
        "type": "urn:problem-type:order-suite:" + error.code.lower().replace("_", "-"),
        "title": error.code.replace("_", " ").capitalize(),
        "status": error.status,
        "detail": str(error),
        "instance": instance,
        "code": error.code,
        "request_id": error.replay_of or request_id,
    }
    if error.errors:
        body["errors"] = [{"field": found.field, "message": found.message} for found in error.errors]
    return body


def problem_headers(error: ServiceError) -> dict[str, str]:
    """Return the headers of a problem response: its type, and what the client should do next."""
    headers = {"Content-Type": PROBLEM_TYPE}
    if error.replay_of is not None:
        headers |= REPLAYED
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allowed
    if error.status == 401:
        headers["WWW-Authenticate"] = _challenge(error)
    if error.status == 503 or error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after or OVERLOAD_RETRY_SECONDS)
    return headers


def _challenge(error: ServiceError) -> str:
    """Return the WWW-Authenticate value of RFC 6750. It explains the error only if a token was sent."""
    if isinstance(error, OtherAuthorization) or not isinstance(error, InvalidToken | TokenRevoked):
        return "Bearer"
    return f'Bearer error="invalid_token", error_description="{type(error).detail}"'


def add_exhausted_limit(error: Exception, headers: dict[str, str]) -> None:
    """Add the RateLimit fields of `error` to `headers`, if its limit is not one of those that RequestLimits counts."""
    if isinstance(error, RateLimited) and error.policy:
        append_item(headers, "RateLimit", f'"{error.policy}";r=0;t={error.retry_after}')
    if isinstance(error, TooManyAtOnce):  # no `w` and no `t`: the quota is free again as soon as a request ends
        append_item(headers, "RateLimit-Policy", f'"{error.policy}";q={error.allowed};qu="concurrent-requests"')
        append_item(headers, "RateLimit", f'"{error.policy}";r=0')


def append_item(headers: dict[str, str], name: str, item: str) -> None:
    """Append an item to a header whose value is a list."""
    headers[name] = f"{headers[name]}, {item}" if name in headers else item
