"""Errors that cross a service boundary. Each has the `code` and `status` that the REST API answers with.

Errors of one service's things (OrderNotFound, SkuAlreadyExists) stand in that service's own contract.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

# Statuses of answers that are not kept under an idempotency key: a request that was wrong by itself may be mended and
# sent again with the same one.
NOT_STORED = frozenset({400, 401, 406, 413, 415, 429})


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: its path, such as `items[0].quantity`, and what is wrong with it."""

    field: str
    message: str


class ServiceError(Exception):
    """An answer, not an accident: the caller can act on it. `str(error)` is the detail shown to the client."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    detail: ClassVar[str] = "Something went wrong on our side."
    _by_name: ClassVar[dict[str, type["ServiceError"]]] = {}

    def __init_subclass__(cls) -> None:
        """Remember every error by its name, so that a caller gets back what the callee raised."""
        ServiceError._by_name[cls.__name__] = cls

    def __init__(
        self, detail: str | None = None, errors: Iterable[FieldError] = (), retry_after: int | None = None
    ) -> None:
        super().__init__(detail or type(self).detail)
        self.errors = tuple(errors)
        self.retry_after = retry_after
        self.replay_of: str | None = None
        """Id of the request that was refused like this first, where this one repeats it under its idempotency key."""

    def to_wire(self) -> dict[str, Any]:
        """What travels in an RPC reply beside Nameko's own fields.

        The name is that of the nearest error in the contracts: of one made from it elsewhere a caller may know nothing.
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
        """The error that `to_wire` described; an unknown name becomes a plain ServiceError."""
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
        """Build the error from its fields, and repeat them in the detail for whoever only reads that."""
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
    """No such thing, or it is someone else's."""

    code, status, detail = "NOT_FOUND", 404, "There is nothing here."


class InvalidState(ServiceError):
    """The thing is past the state in which this is possible."""

    code, status, detail = "INVALID_STATE", 409, "This is not possible in the present state."


class PreconditionFailed(ServiceError):
    """The resource is not (any more) in the state that the client knows."""

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
    """Too much in too short a time. `policy` is the limit's name, where a service and not the gateway has counted."""

    code, status, detail = "RATE_LIMITED", 429, "Too many requests. Wait, and try again."
    policy: ClassVar[str] = ""

    @classmethod
    def by(cls, quota: int, seconds: int, retry_after: int) -> Self:
        """Say what is allowed, and in how many seconds the next one is."""
        detail = f"More than {quota} requests in {seconds} s. Nothing was done; try again in {retry_after} s."
        return cls(detail, retry_after=retry_after)


class InternalError(ServiceError):
    """A defect of ours; the detail never tells what it was, the log does."""

    code, status = "INTERNAL_ERROR", 500


class ServiceUnavailable(ServiceError):
    """A service or what it depends on is down or overloaded; nothing was done."""

    code, status, detail = "SERVICE_UNAVAILABLE", 503, "A part of the shop is unavailable. Try again shortly."


class Overloaded(ServiceUnavailable):
    """The service works, but has too much to do already; nothing was done. Leave it alone for `retry_after` seconds."""

    detail = "The shop has too much to do. Nothing was done; try again shortly."


class UpstreamTimeout(ServiceError):
    """A service did not answer in time; whether it acted is unknown."""

    code, status, detail = "UPSTREAM_TIMEOUT", 504, "A part of the shop did not answer in time."


class BadCall(ServiceError):
    """The call names a method that does not exist, or has wrong arguments: a defect of the caller."""

    code, status, detail = "INTERNAL_ERROR", 500, "The call does not match the service's methods."


class DeadLetterNotFound(NotFound):
    """No dead letter with this id in this service."""

    code, status, detail = "DEAD_LETTER_NOT_FOUND", 404, "There is no dead letter with this id."
