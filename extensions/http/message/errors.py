"""Errors that only the HTTP layer knows, and how every error becomes an answer: RFC 9457 problem details."""

from collections.abc import Iterable
from typing import Any

from contracts.errors import FieldError, InternalError, NotFound, RateLimited, ServiceError
from contracts.users import InvalidToken, OtherAuthorization, TokenRevoked

PROBLEM_TYPE = "application/problem+json"
OVERLOAD_RETRY_SECONDS = 1
REPLAYED = {"Idempotent-Replayed": "true"}
"""What says that an answer is the one that the first request with this idempotency key got."""


class MalformedJson(ServiceError):
    """The body is not JSON as we take it."""

    code, status, detail = "MALFORMED_JSON", 400, "The body is not valid JSON."


class MalformedRequest(ServiceError):
    """The request breaks the rules of HTTP, or is longer than we read."""

    code, status, detail = "VALIDATION_ERROR", 400, "This is not an HTTP/1.1 request."

    def __init__(self, detail: str | None = None) -> None:
        """A validation error names its field, always; here it is the request as such."""
        super().__init__(detail)
        self.errors = (FieldError("request", str(self)),)


class PathNotFound(NotFound):
    """No route has this path."""

    detail = "There is nothing at this path. /docs lists what there is."


class MethodNotAllowed(ServiceError):
    """The path exists, but not with this method."""

    code, status = "METHOD_NOT_ALLOWED", 405

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"This path takes {self.allowed}.")


class NotAcceptable(ServiceError):
    """The client wants something other than JSON."""

    code, status, detail = "NOT_ACCEPTABLE", 406, "Answers are application/json; let the Accept header allow it."


class RequestTimeout(ServiceError):
    """The request did not arrive in time."""

    code, status, detail = "REQUEST_TIMEOUT", 408, "The request took too long to arrive. Send it again."


class PayloadTooLarge(ServiceError):
    """The body is over the limit."""

    code, status, detail = "PAYLOAD_TOO_LARGE", 413, "The body is too large."

    @classmethod
    def over(cls, limit: int) -> "PayloadTooLarge":
        """Say how much is allowed."""
        return cls(f"The body has more than the {limit} bytes that are allowed.")


class TooManyAtOnce(ServiceError):
    """One user has too many requests under way."""

    code, status = "RATE_LIMITED", 429
    policy = "at_once"
    allowed = 0

    @classmethod
    def over(cls, limit: int) -> "TooManyAtOnce":
        """Say how many are allowed."""
        detail = f"More than {limit} of your requests are under way. Nothing was done; try again shortly."
        error = cls(detail, retry_after=OVERLOAD_RETRY_SECONDS)
        error.allowed = limit
        return error


class UnsupportedMediaType(ServiceError):
    """The body is said to be something other than JSON."""

    code, status = "UNSUPPORTED_MEDIA_TYPE", 415
    detail = "Send JSON in UTF-8, and say so: Content-Type: application/json."


def problem(error: ServiceError, request_id: str, instance: str) -> dict[str, Any]:
    """Return the body that describes `error`. A defect of ours never tells more than that it is one."""
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
    """Return the headers that belong to `error`: what a client does next."""
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
    """Return what RFC 6750 has a client told: how to log in, and what is wrong with a token, if it has sent one."""
    if isinstance(error, OtherAuthorization) or not isinstance(error, InvalidToken | TokenRevoked):
        return "Bearer"
    return f'Bearer error="invalid_token", error_description="{type(error).detail}"'


def tell_refusal(error: Exception, headers: dict[str, str]) -> None:
    """Add to `headers` that nothing is left, where it was not counted here."""
    if isinstance(error, RateLimited) and error.policy:
        add_item(headers, "RateLimit", f'"{error.policy}";r=0;t={error.retry_after}')
    if isinstance(error, TooManyAtOnce):  # no `w` and no `t`: some are free again when they are answered
        add_item(headers, "RateLimit-Policy", f'"{error.policy}";q={error.allowed};qu="concurrent-requests"')
        add_item(headers, "RateLimit", f'"{error.policy}";r=0')


def add_item(headers: dict[str, str], name: str, item: str) -> None:
    """Add an item to a header that is a list."""
    headers[name] = f"{headers[name]}, {item}" if name in headers else item
