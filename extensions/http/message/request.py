"""One HTTP request on its way to a handler: who asks, and what for, checked step by step."""

import re
import time
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any, Generic, cast, get_args
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from typing_extensions import TypeVar

from contracts.base import Actor
from contracts.base import Request as Fields
from contracts.errors import FieldError, NotAuthenticated, PermissionDenied, ValidationFailed
from contracts.ids import parse_id
from contracts.users import OtherAuthorization, Role
from extensions.http.message import media_types as media
from extensions.http.message.errors import NotAcceptable, UnsupportedMediaType
from extensions.http.message.strict_json import parse_object
from extensions.observability.traces import Trace
from extensions.security.tokens import AccessToken

MAX_QUERY_FIELDS = 50
NOBODY = Actor(user_id=UUID(int=0))
"""The actor of an anonymous request: owns nothing, may do nothing. No actor at all would be the operator."""

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")


class Access(StrEnum):
    """Who may call a route."""

    ANYONE = "anyone"
    """A token is not looked at."""
    OPTIONAL = "optional"
    """Anyone; who sends a token is known by it, so a wrong one is refused."""
    USER = "user"
    ADMIN = "admin"


Body = TypeVar("Body", default=Any)
Query = TypeVar("Query", default=Any)


class HttpRequest(Generic[Body, Query]):
    """What a handler gets. `body` and `query` are objects of the models that the route declares."""

    def __init__(self, method: str, path: str, query_string: str, headers: dict[str, str], trace: Trace) -> None:
        """`headers` have their names in lower case."""
        self.method, self.path, self.query_string, self.headers, self.trace = method, path, query_string, headers, trace
        self.token: AccessToken | None = None
        self.arguments: dict[str, UUID] = {}
        self.query: Query
        """Valid once the route has read it."""
        self.body: Body
        """As `query`. A route without a body has none."""
        self.idempotency_key: str | None = None
        self.precondition: dict[str, Any] = {}
        """The `if_match` of a PUT or PATCH, as the RPC methods take it; nothing without one."""
        self.route = ""
        """The path of its route, parameters in braces; nothing before one is found."""
        self.instance = path
        """What a problem is said to be about: the path, in one spelling where a problem may have to be repeated."""
        self.peer = ""
        """The address that the connection comes from."""
        self.address = ""
        """The client's, as far as proxies are believed: known on routes with a limit of their own."""
        self.limit_headers: dict[str, str] = {}
        self.deadline = time.monotonic()

    @property
    def has_body(self) -> bool:
        """True where the client announces a body that is not empty."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0").strip("0") != ""

    def remaining(self) -> float:
        """How many seconds are left to answer in."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def actor(self) -> Actor:
        """The user of the access token, NOBODY without one."""
        if self.token is None:
            return NOBODY
        return Actor(user_id=self.token.user_id, roles=tuple(str(role) for role in self.token.roles))

    def require_admin(self) -> None:
        """Raise NotAuthenticated or PermissionDenied unless an administrator asks."""
        if self.token is None:
            raise NotAuthenticated
        if Role.ADMIN not in self.token.roles:
            raise PermissionDenied

    def may_see(self, owner_id: Any) -> bool:
        """Tell whether what belongs to the user with this id is the caller's to see, as Actor.may_see does."""
        return self.token is not None and (Role.ADMIN in self.token.roles or str(self.token.user_id) == owner_id)

    def authenticate(self, access: Access, verify: Callable[[str], AccessToken]) -> None:
        """Find out who asks. Raises NotAuthenticated, PermissionDenied and what `verify` raises."""
        if access is Access.ANYONE:
            return
        token = bearer_token(self.headers.get("authorization"))
        if token is not None:
            self.token = verify(token)
        elif access is not Access.OPTIONAL:
            raise NotAuthenticated
        if access is Access.ADMIN:
            self.require_admin()

    def check_accept(self, produces: str = media.JSON) -> None:
        """Raise NotAcceptable where the client rules the media type `produces` out."""
        if not media.accepts(self.headers.get("accept", ""), produces):
            raise NotAcceptable(f"Answers are {produces}; let the Accept header allow it.")

    def check_body_type(self) -> None:
        """Raise UnsupportedMediaType unless the body is declared to be JSON in UTF-8, as it is."""
        if not media.is_json(self.headers.get("content-type", "")):
            raise UnsupportedMediaType
        if self.headers.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
            raise UnsupportedMediaType("Send the body as it is, without a Content-Encoding.")

    def read_arguments(self, raw: dict[str, str]) -> None:
        """Take the path's parameters, all of which are ids. Raises ValidationFailed."""
        self.arguments = {name: parse_id(name, value) for name, value in raw.items()}

    def read_query(self, model: type[Fields]) -> None:
        """Validate the query string with `model`. Raises ValidationFailed."""
        if not self.query_string:
            self.query = cast("Query", _no_fields(model))
            return
        stated = parse_query(self.query_string)
        self.query = cast("Query", model.parse({name: _convert(model, name, value) for name, value in stated.items()}))

    def read_body(self, model: type[Fields], body: bytes) -> None:
        """Validate the body with `model`. Raises MalformedJson, ValidationFailed."""
        self.body = cast("Body", model.parse(parse_object(body)))

    def read_idempotency_key(self) -> None:
        """Take the Idempotency-Key header. Raises ValidationFailed."""
        key = self.headers.get("idempotency-key")
        if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
            raise ValidationFailed.field("Idempotency-Key", "must be 1 to 255 visible ASCII characters")
        self.idempotency_key = key

    def next_page(self, cursor: str) -> str:
        """Return the path and query of the page that `cursor` stands for."""
        pairs = [pair for pair in parse_qsl(self.query_string, keep_blank_values=True) if pair[0] != "cursor"]
        return f"{self.path}?{urlencode([*pairs, ('cursor', cursor)])}"


def bearer_token(header: str | None) -> str | None:
    """Return the token in an Authorization header, None without one. Raises OtherAuthorization for another scheme."""
    if not header:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise OtherAuthorization
    return token.strip()


def parse_query(query_string: str) -> dict[str, str]:
    """Return the query's fields. Raises ValidationFailed for a repeated one and for what is not UTF-8."""
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
def _no_fields(model: type[Fields]) -> Fields:
    return model.parse({})


def _convert(model: type[Fields], name: str, value: str) -> Any:
    """A query knows only strings: make them what the model wants, or leave them for it to refuse."""
    kinds = _kinds(model).get(name, ())
    if bool in kinds and value in {"true", "false"}:
        return value == "true"
    if int in kinds and _INTEGER.fullmatch(value):
        return int(value)
    return value


@lru_cache(maxsize=256)
def _kinds(model: type[Fields]) -> dict[str, tuple[Any, ...]]:
    """Return the plain types of each field, those of a union (`int | None`) one by one."""
    return {name: (field.annotation, *get_args(field.annotation)) for name, field in model.model_fields.items()}
