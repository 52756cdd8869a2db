"""The building blocks of every contract: field types, events, views, requests, pages and actors."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Generic, Protocol, Self, TypeVar, cast
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from contracts.errors import PermissionDenied, ValidationFailed
from contracts.validation import field_errors

MAX_PAGE = 100
DEFAULT_PAGE = 20
MAX_STOCK = 10**9
MAX_QUANTITY = 10_000

UUID_SPELLING = re.compile("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_MONEY = re.compile(r"[0-9]{1,10}(\.[0-9]{1,2})?")


def _decimal_string(value: object) -> object:
    """Refuse JSON numbers: a float cannot represent money exactly, and a client that may send integers sends floats."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, str) and _MONEY.fullmatch(value):
        return Decimal(value)
    message = 'must be a decimal string with at most two places, such as "149.90"'
    raise ValueError(message)


def _in_one_spelling(value: object) -> object:
    """Refuse `{...}`, `urn:uuid:...` and digits without hyphens: no response spells an id like this."""
    if isinstance(value, str) and not UUID_SPELLING.fullmatch(value):
        raise PydanticCustomError("uuid_parsing", "must be a UUID")
    return value


def _whole(value: object) -> object:
    """Accept 1.0 and 1e0: a number without a fraction is an integer in JSON Schema, and some clients spell it so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _two_places(value: Decimal) -> str:
    return f"{value:.2f}"


def _utc(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _with_offset(value: object) -> object:
    if isinstance(value, str) and " " in value:
        message = "must be an RFC 3339 time without blanks; in a query, the + of an offset is written %2B"
        raise ValueError(message)
    if isinstance(value, datetime) or (isinstance(value, str) and "T" in value.upper()):
        return value
    message = 'must be an RFC 3339 time, such as "2026-01-31T08:30:00Z"'
    raise ValueError(message)


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        message = "must state its offset from UTC, such as the Z in 2026-01-31T08:30:00Z"
        raise ValueError(message)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        message = "is before the year 1 or after the year 9999 in UTC"
        raise ValueError(message) from None


Money = Annotated[
    Decimal,
    BeforeValidator(_decimal_string),
    Field(max_digits=12, decimal_places=2, ge=0, allow_inf_nan=False),
    PlainSerializer(_two_places, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,10}\.\d{2}$", "examples": ["149.90"]}, mode="serialization"),
    WithJsonSchema(
        {"type": "string", "pattern": rf"^{_MONEY.pattern}$", "examples": ["149.90"]},
        mode="validation",
    ),
]
"""Decimal in Python, a string with two places in JSON, never a float."""

Instant = Annotated[
    datetime,
    BeforeValidator(_with_offset),
    AfterValidator(_aware),
    PlainSerializer(_utc, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""A point in time: aware in Python, RFC 3339 in UTC with microseconds and a Z in JSON."""

Id = Annotated[UUID, BeforeValidator(_in_one_spelling)]
"""The id of a thing, of any version, as a client states it."""

Sku = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
WHOLE = BeforeValidator(_whole)
"""Makes a strict int an integer as JSON Schema defines it."""

Quantity = Annotated[int, Field(strict=True, ge=1, le=MAX_QUANTITY), WHOLE]
StockLevel = Annotated[int, Field(strict=True, ge=0, le=MAX_STOCK), WHOLE]
PageLimit = Annotated[int, Field(strict=True, ge=1, le=MAX_PAGE), WHOLE]
# The longest one holds a name of 200 letters of four bytes each.
Cursor = Annotated[str, Field(max_length=2048)]


def at_most(count: int) -> BeforeValidator:
    """Refuse a longer list before its items are validated; Pydantic would validate all of them first."""

    def check(value: object) -> object:
        if isinstance(value, list | tuple) and len(value) > count:
            raise PydanticCustomError("too_long", "", {"max_length": count})
        return value

    return BeforeValidator(check)


class Event(BaseModel):
    """A fact that its producer publishes to the `events` exchange; consumers ignore fields that they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event_type: ClassVar[str]
    """The routing key and the AMQP `type`."""
    producer: ClassVar[str]
    consumers: ClassVar[tuple[str, ...]] = ()
    """Services that must receive it; an event that has any is published `mandatory`."""
    listeners: ClassVar[tuple[str, ...]] = ()
    """Services of which every running process receives it (extensions/messaging/broadcast.py)."""
    secret_for: ClassVar[timedelta | None] = None
    """How long its body holds a valid secret, such as the token of a mail. No view and no log shows such a body. A
    message that could not be handled by then is deleted."""
    private_fields: ClassVar[tuple[str, ...]] = ()
    """Fields with personal data, which the event log leaves out."""

    @property
    def correlation_id(self) -> str:
        """The id of the order that it belongs to, or of the resource that it is about."""
        for field in ("order_id", "user_id", "product_id", "id"):
            value = getattr(self, field, None)
            if value is not None:
                return str(value)
        return ""

    def to_json(self) -> str:
        """The message body."""
        return self.model_dump_json()


E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Received(Generic[E]):
    """One delivery of an event, as use cases get it, one or many at a time."""

    event: E
    message_id: UUID
    request_id: str
    traceparent: str


@dataclass(frozen=True, slots=True)
class StoredCause:
    """What was stored of a received message, so that a later event can name it as its cause."""

    message_id: UUID
    request_id: str
    traceparent: str


class Cause(Protocol):
    """The cause of an event: a Received event, or the request that is being handled."""

    @property
    def request_id(self) -> str:
        """The id of the request that started the chain of causes."""

    @property
    def traceparent(self) -> str:
        """Its trace."""


class Publish(Protocol):
    """Publishes events of a use case. They are sent after the transaction commits, and never if it does not.

    In a service this is `UnitOfWork.publish` (extensions/storage/unit_of_work.py). Tests and tools pass others.
    """

    def __call__(self, event: Event, cause: Cause | None = None) -> UUID:
        """Publish `event`. `cause` led to it, by default the request being handled. Returns its message id."""


T = TypeVar("T")


class Json(dict[str, Any], Generic[T]):
    """A view `T` as it is sent: `Json[OrderView]` is an OrderView in plain JSON types.

    Only a type, for mypy and the reader. At run time it is a plain dict, which the gateway forwards without parsing it.
    """


class View(BaseModel):
    """The result of an RPC method, or a part of one."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    def to_dict(self) -> Json[Self]:
        """Return it in plain JSON types: strings, numbers, booleans, lists, dicts and null."""
        return cast("Json[Self]", self.model_dump(mode="json"))


class Request(BaseModel):
    """The arguments of a caller. Unknown fields are refused, so that a misspelt one is never silently dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Validate `data`; raises ValidationFailed naming every wrong field."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ValidationFailed.of(field_errors(error)) from None


class NullIsAbsent(Request):
    """A request in which a null field is the same as an absent one, for idempotency keys too."""

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class Replayed(dict[str, Any]):
    """The stored result of the first call with the same idempotency key."""


ABSENT: Any = None
"""Default of a field that a request may leave out, but not set to null.
`model_fields_set` contains the fields that were sent."""


class PageRequest(Request):
    """The size and the start of a page of a list."""

    limit: PageLimit = DEFAULT_PAGE
    cursor: Cursor | None = None


class Actor(Request):
    """The user on whose behalf a call is made. A call without an actor is the operator's, who may do everything."""

    user_id: UUID | None = None
    roles: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: "Actor | Mapping[str, Any] | None") -> "Actor":
        """Return the actor of a call, the operator where there is none. Raises ValidationFailed."""
        if data is None:
            return OPERATOR
        if isinstance(data, Actor):
            return data
        if not isinstance(data, Mapping) or data.get("user_id") is None:
            raise ValidationFailed.field("actor.user_id", "state the user, or omit the actor to act as the operator")
        return cls.parse(data)

    @property
    def is_admin(self) -> bool:
        """True for administrators and for the operator."""
        return self.user_id is None or "admin" in self.roles

    def require_admin(self) -> None:
        """Raise PermissionDenied unless this is an administrator."""
        if not self.is_admin:
            raise PermissionDenied

    def may_see(self, owner_id: UUID) -> bool:
        """True when a thing that belongs to `owner_id` is visible to this actor."""
        return self.is_admin or self.user_id == owner_id


OPERATOR = Actor()


V = TypeVar("V", bound=View)


class Page(Generic[V]):
    """One page of a list: `Json[Page[OrderView]]` is `{"items": [...], "next_cursor": "..." | None}`. Only a type."""


def page_of(items: Sequence[V], next_cursor: str | None) -> Json[Page[V]]:
    """Return the result of a list method."""
    return cast("Json[Page[V]]", {"items": [item.to_dict() for item in items], "next_cursor": next_cursor})
