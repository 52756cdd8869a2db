"""One HTTP request: authentication, then validation of path, query, headers and body, one step per method."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Generic, Protocol, cast, get_args
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from typing_extensions import TypeVar

from contracts.base import Actor
from contracts.base import Request as Fields
from contracts.errors import FieldError, NotAuthenticated, PermissionDenied, ValidationFailed
from contracts.ids import parse_id
from contracts.users import OtherAuthorization, Role
from contracts.validation import surplus_fields
from extensions.http.message import media_types as media
from extensions.http.message.errors import NotAcceptable, UnsupportedMediaType
from extensions.http.message.strict_json import parse_object
from extensions.observability.traces import Trace
from extensions.security.access_tokens import AccessToken

MAX_QUERY_FIELDS = 50
# So short a body has too few unknown fields to make its validation slow.
SMALL_BODY_BYTES = 1000
ANONYMOUS = Actor(user_id=UUID(int=0))
"""The actor of an unauthenticated request. It owns nothing; OPERATOR, who may do everything, has no user id."""

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")


class Access(StrEnum):
    """Who may call a route."""

    ANYONE = "anyone"
    """Everyone; a token is ignored."""
    OPTIONAL = "optional"
    """Everyone; a token identifies the caller, so an invalid one is refused."""
    USER = "user"
    ADMIN = "admin"


Body = TypeVar("Body", default=Any)
Query = TypeVar("Query", default=Any)


class StreamedBody(Protocol):
    """A body that can be read in pieces."""

    def pieces(self, max_bytes: int, deadline: float) -> Iterator[bytes]:
        """Yield the body. Raises PayloadTooLarge, RequestTimeout, MalformedRequest."""


def _no_pieces(_max_bytes: int, _deadline: float) -> Iterator[bytes]:
    return iter(())


class HttpRequest(Generic[Body, Query]):
    """The request that a handler receives. `body` and `query` are objects of the models that the route declares."""

    def __init__(self, method: str, path: str, query_string: str, headers: dict[str, str], trace: Trace) -> None:
        """`headers` is keyed by lower-case names."""
        self.method, self.path, self.query_string, self.headers, self.trace = method, path, query_string, headers, trace
        self.token: AccessToken | None = None
        self.arguments: dict[str, UUID] = {}
        self.query: Query
        """Valid once the route has read it."""
        self.body: Body
        """As `query`. A route without a body has none."""
        self.pieces: Callable[[int, float], Iterator[bytes]] = _no_pieces
        """Yields a streamed body in pieces: `pieces(max_bytes, deadline)`, a time of time.monotonic()."""
        self.idempotency_key: str | None = None
        self.precondition: dict[str, Any] = {}
        """`{"if_match": [...]}` of a PUT or PATCH, in the form of the RPC methods; empty without If-Match."""
        self.route = ""
        """The path template of the matched route, such as `/orders/{order_id}`; empty before the match."""
        self.instance = path
        """The `instance` of a problem: the path, in canonical form where the problem is stored for a replay."""
        self.peer = ""
        """The remote address of the connection."""
        self.address = ""
        """The client's address behind trusted proxies; set only where a rate limit needs it."""
        self.limit_headers: dict[str, str] = {}
        self.deadline = time.monotonic()

    @property
    def has_body(self) -> bool:
        """True where the headers announce a body that is not empty."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0").strip("0") != ""

    def remaining(self) -> float:
        """Return the seconds until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def actor(self) -> Actor:
        """The user of the access token; ANONYMOUS without one."""
        if self.token is None:
            return ANONYMOUS
        return Actor(user_id=self.token.user_id, roles=tuple(str(role) for role in self.token.roles))

    @property
    def user_id(self) -> UUID:
        """The caller's id, for a route about the caller's own things. Raises NotAuthenticated without a token."""
        if self.token is None:
            raise NotAuthenticated
        return self.token.user_id

    def require_admin(self) -> None:
        """Raise NotAuthenticated or PermissionDenied unless the caller is an administrator."""
        if self.token is None:
            raise NotAuthenticated
        if Role.ADMIN not in self.token.roles:
            raise PermissionDenied

    def may_access(self, owner_id: Any) -> bool:
        """Tell whether the caller is the owner or an administrator, as Actor.may_see does in the services."""
        return self.token is not None and (Role.ADMIN in self.token.roles or str(self.token.user_id) == owner_id)

    def authenticate(self, access: Access, verify: Callable[[str], AccessToken]) -> None:
        """Identify the caller by its token. Raises NotAuthenticated, PermissionDenied, and what `verify` raises."""
        if access is Access.ANYONE:
            return
        token = bearer_token(self.headers.get("authorization"))
        if token is not None:
            self.token = verify(token)
        elif access is not Access.OPTIONAL:
            raise NotAuthenticated
        if access is Access.ADMIN:
            self.require_admin()

    def check_accept(self, produces: str = media.JSON, *others: str) -> None:
        """Raise NotAcceptable where the Accept header excludes the media type `produces` and all others."""
        if not any(media.accepts(self.headers.get("accept", ""), one) for one in (produces, *others)):
            raise NotAcceptable.of(" or ".join((produces, *others)))

    def check_streamed_type(self, consumes: Sequence[str]) -> None:
        """Raise UnsupportedMediaType unless the Content-Type is one of `consumes`, in UTF-8 and not compressed."""
        if self.content_type not in consumes or not media.is_utf8(self.headers.get("content-type", "")):
            raise UnsupportedMediaType(f"Send {' or '.join(consumes)} in UTF-8, and say so in the Content-Type.")
        self._check_encoding()

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def check_body_type(self) -> None:
        """Raise UnsupportedMediaType unless the Content-Type is JSON in UTF-8 and the body is not compressed."""
        if not media.is_json(self.headers.get("content-type", "")):
            raise UnsupportedMediaType
        self._check_encoding()

    def _check_encoding(self) -> None:
        if self.headers.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
            raise UnsupportedMediaType("Send the body as it is, without a Content-Encoding.")

    def read_arguments(self, raw: dict[str, str]) -> None:
        """Validate the parameters of the path, all of which are ids. Raises ValidationFailed."""
        self.arguments = {name: parse_id(name, value) for name, value in raw.items()}

    def read_query(self, model: type[Fields]) -> None:
        """Validate the query string with `model`. Raises ValidationFailed."""
        if not self.query_string:
            self.query = cast("Query", _empty_fields(model))
            return
        stated = parse_query(self.query_string)
        self.query = cast("Query", model.parse({name: _convert(model, name, value) for name, value in stated.items()}))

    def read_body(self, model: type[Fields], body: bytes) -> None:
        """Validate the body with `model`. Raises MalformedJson, ValidationFailed."""
        data = parse_object(body)
        surplus = surplus_fields(model, data) if len(body) > SMALL_BODY_BYTES else None
        if surplus:
            raise ValidationFailed.of(surplus)
        self.body = cast("Body", model.parse(data))

    def use_default_body(self, model: type[Fields]) -> None:
        """Use the defaults of `model`: the request has no body, and needs none."""
        self.body = cast("Body", _empty_fields(model))

    def read_idempotency_key(self) -> None:
        """Validate the Idempotency-Key header. Raises ValidationFailed."""
        key = self.headers.get("idempotency-key")
        if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
            raise ValidationFailed.field("Idempotency-Key", "must be 1 to 255 visible ASCII characters")
        self.idempotency_key = key

    def next_page(self, cursor: str) -> str:
        """Return the path and query of the page that starts at `cursor`."""
        pairs = [pair for pair in parse_qsl(self.query_string, keep_blank_values=True) if pair[0] != "cursor"]
        return f"{self.path}?{urlencode([*pairs, ('cursor', cursor)])}"


def bearer_token(header: str | None) -> str | None:
    """Return the token of an Authorization header, None without one. Raises OtherAuthorization for another scheme."""
    if not header:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise OtherAuthorization
    return token.strip()


def parse_query(query_string: str) -> dict[str, str]:
    """Return the fields of a query. Raises ValidationFailed for a repeated field, invalid UTF-8, or too many fields."""
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except UnicodeDecodeError:
        raise ValidationFailed.field("query", "is not UTF-8") from None
    except ValueError:
        raise ValidationFailed.field("query", f"has more than {MAX_QUERY_FIELDS} fields") from None
    names = [name for name, _ in pairs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValidationFailed.of(FieldError(name, "stands more than once") for name in repeated)
    return dict(pairs)


@lru_cache(maxsize=256)
def _empty_fields(model: type[Fields]) -> Fields:
    return model.parse({})


def _convert(model: type[Fields], name: str, value: str) -> Any:
    """Convert the value of a query field to the type of the field; the model refuses what does not convert."""
    types = _field_types(model).get(name, ())
    if bool in types and value in {"true", "false"}:
        return value == "true"
    if int in types and _INTEGER.fullmatch(value):
        return int(value)
    return value


@lru_cache(maxsize=256)
def _field_types(model: type[Fields]) -> dict[str, tuple[Any, ...]]:
    """Return the types of each field; a union such as `int | None` is listed with its members."""
    return {name: (field.annotation, *get_args(field.annotation)) for name, field in model.model_fields.items()}
