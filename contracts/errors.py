"""Errors that cross a service boundary. Each has the `code` and `status` of its response in the REST API.

Errors about the resources of one service (OrderNotFound, SkuAlreadyExists) are in the contract of that service.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

# Statuses of errors that are not stored under an idempotency key: a client may correct an invalid request, and send it
# again with the same key.
NOT_STORED = frozenset({400, 401, 406, 413, 415, 429})


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: its path, such as `items[0].quantity`, and what is wrong with it."""

    field: str
    message: str


class ServiceError(Exception):
    """An expected error that the caller can act on. `str(error)` is the detail shown to the client."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    detail: ClassVar[str] = "Something went wrong on our side."
    _by_name: ClassVar[dict[str, type["ServiceError"]]] = {}

    def __init_subclass__(cls) -> None:
        """Register every error by its name, so that the caller of an RPC method gets the class that it raised."""
        ServiceError._by_name[cls.__name__] = cls

    def __init__(
        self, detail: str | None = None, errors: Iterable[FieldError] = (), retry_after: int | None = None
    ) -> None:
        super().__init__(detail or type(self).detail)
        self.errors = tuple(errors)
        self.retry_after = retry_after
        self.replay_of: str | None = None
        """Id of the request that first got this error, where this request repeats it under the same idempotency key."""

    def to_wire(self) -> dict[str, Any]:
        """Return the fields that an RPC reply has in addition to Nameko's own.

        `name` is the nearest class in the contracts. Callers do not know subclasses that are defined elsewhere.
        """
        known = next(kind for kind in type(self).__mro__ if kind.__module__.partition(".")[0] == "contracts")
        return {
            "name": known.__name__,
            "detail": str(self),
            "errors": [{"field": error.field, "message": error.message} for error in self.errors],
            "retry_after": self.retry_after,
            "replay_of": self.replay_of,
        }

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> "ServiceError":
        """Return the error that `to_wire` described; an unknown name becomes a plain ServiceError."""
        kind = cls._by_name.get(str(data.get("name")), ServiceError)
        errors = [FieldError(str(error["field"]), str(error["message"])) for error in data.get("errors", ())]
        error = kind(str(data.get("detail", "")), errors, data.get("retry_after"))
        error.replay_of = data.get("replay_of")
        return error


class ValidationFailed(ServiceError):
    """A field is missing, unknown or of the wrong type or size."""

    code, status, detail = "VALIDATION_ERROR", 400, "The request has invalid fields."

    @classmethod
    def of(cls, errors: Iterable[FieldError]) -> Self:
        """Build the error from the wrong fields, which the detail repeats for clients that show only the detail."""
        found = list(errors)
        return cls("; ".join(f"{error.field or 'body'}: {error.message}" for error in found), found)

    @classmethod
    def field(cls, field: str, message: str) -> Self:
        """Build the error for one field."""
        return cls.of([FieldError(field, message)])


class NotAuthenticated(ServiceError):
    """No credentials at all."""

    code, status, detail = "NOT_AUTHENTICATED", 401, "Send an access token: Authorization: Bearer <token>."


class PermissionDenied(ServiceError):
    """The caller's role does not suffice."""

    code, status, detail = "PERMISSION_DENIED", 403, "This needs the admin role."


class NotFound(ServiceError):
    """The resource does not exist, or belongs to another user."""

    code, status, detail = "NOT_FOUND", 404, "There is nothing here."


class InvalidState(ServiceError):
    """The resource is in a state in which this is not possible."""

    code, status, detail = "INVALID_STATE", 409, "This is not possible in the present state."


class PreconditionFailed(ServiceError):
    """The resource has changed since the client read it."""

    code, status = "PRECONDITION_FAILED", 412
    detail = "It has changed since you read it; nothing was done. Read it again, and repeat your change with its ETag."


class IdempotencyKeyReused(ServiceError):
    """The same idempotency key came with another request."""

    code, status = "IDEMPOTENCY_KEY_REUSED", 422
    detail = "This idempotency key was used for a different request. Use a new key."


class IdempotencyKeyInUse(ServiceError):
    """The first request with this key is still running."""

    code, status = "IDEMPOTENCY_KEY_IN_USE", 409
    detail = "A request with this idempotency key is still running. Ask again in a moment."


class RateLimited(ServiceError):
    """Too many requests in a period. `policy` is the name of the limit, where a service has counted them."""

    code, status, detail = "RATE_LIMITED", 429, "Too many requests. Wait, and try again."
    policy: ClassVar[str] = ""

    @classmethod
    def by(cls, quota: int, seconds: int, retry_after: int) -> Self:
        """Build the error for a quota of requests per period, with the seconds until the next one is accepted."""
        detail = f"More than {quota} requests in {seconds} s. Nothing was done; try again in {retry_after} s."
        return cls(detail, retry_after=retry_after)


class InternalError(ServiceError):
    """A defect in the suite. The detail never describes it; the log does."""

    code, status = "INTERNAL_ERROR", 500


class InvalidResult(InternalError):
    """A method has ended, but its result is no JSON: a defect of the callee. What it did stays done."""

    detail = "The call was made, but its result cannot be sent."


class ServiceUnavailable(ServiceError):
    """A service or what it depends on is down or overloaded; nothing was done."""

    code, status, detail = "SERVICE_UNAVAILABLE", 503, "A part of the shop is unavailable. Try again shortly."


class Overloaded(ServiceUnavailable):
    """The service is overloaded; nothing was done. Callers should send it nothing for `retry_after` seconds."""

    detail = "The shop has too much to do. Nothing was done; try again shortly."


class UpstreamTimeout(ServiceError):
    """A service did not reply in time; whether it acted is unknown."""

    code, status, detail = "UPSTREAM_TIMEOUT", 504, "A part of the shop did not respond in time."


class BadCall(ServiceError):
    """The call names a method that does not exist, or has wrong arguments: a defect of the caller."""

    code, status, detail = "INTERNAL_ERROR", 500, "The call does not match the service's methods."


class DeadLetterNotFound(NotFound):
    """No dead letter with this id in this service."""

    code, status, detail = "DEAD_LETTER_NOT_FOUND", 404, "There is no dead letter with this id."


class DeadLetterForged(InvalidState):
    """The message did not come from a sender with the permission to publish it: it is never handled."""

    detail = "This message came by a way that its sender had no permission for. It can only be discarded."
