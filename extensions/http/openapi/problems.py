"""The error responses of the OpenAPI document: which errors a route can return, and what each looks like.

Most errors follow from the declaration of the route; the declaration's `errors` lists the others.
"""

from collections.abc import Iterable

from contracts.errors import (
    NOT_STORED,
    FieldError,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InternalError,
    NotAuthenticated,
    PermissionDenied,
    PreconditionFailed,
    RateLimited,
    ServiceError,
    ServiceUnavailable,
    UpstreamTimeout,
    ValidationFailed,
)
from contracts.users import EmailNotVerified, InvalidToken, TokenRevoked, UserInactive
from extensions.http.message.errors import (
    PROBLEM_TYPE,
    MalformedJson,
    MethodNotAllowed,
    NotAcceptable,
    PathNotFound,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
    problem,
)
from extensions.http.message.request import Access
from extensions.http.openapi.schemas import Schema
from extensions.http.routing.declaration import RouteDeclaration

ERRORS_OF_A_TOKEN = (InvalidToken, TokenRevoked, UserInactive)
ERRORS_BY_ACCESS: dict[Access, tuple[type[ServiceError], ...]] = {
    Access.ANYONE: (),
    Access.OPTIONAL: ERRORS_OF_A_TOKEN,
    Access.USER: (NotAuthenticated, *ERRORS_OF_A_TOKEN),
    Access.ADMIN: (NotAuthenticated, *ERRORS_OF_A_TOKEN, PermissionDenied),
}
ERRORS_OF_A_BODY = (MalformedJson, RequestTimeout, PayloadTooLarge, UnsupportedMediaType)
ERRORS_OF_A_KEY = (IdempotencyKeyInUse, IdempotencyKeyReused)
ERRORS_OF_THE_GATEWAY = (EmailNotVerified,)
"""Errors of a route that the gateway raises before it calls the use case, so they are never stored."""
# Every route validates its query, can fail with a defect, and can exceed its deadline.
ERRORS_OF_NO_ROUTE = (PathNotFound, MethodNotAllowed)
ERRORS_OF_ALL = (ValidationFailed, NotAcceptable, InternalError, ServiceUnavailable, UpstreamTimeout)

HEADERS = {
    "X-Request-ID": (
        "The caller's id, if it sent a valid one; every log line of the request has it.",
        {"type": "string"},
    ),
    "Location": ("The path of the created resource.", {"type": "string"}),
    "Link": ('`<path>; rel="next"`: the next page, if there is one.', {"type": "string"}),
    "Retry-After": ("Seconds to wait before a retry.", {"type": "integer", "minimum": 1}),
    "ETag": ("Identifies this version of the resource.", {"type": "string"}),
    "Idempotent-Replayed": ("`true` on a repeated response.", {"type": "string", "const": "true"}),
    "RateLimit": ("What remains of each rate limit that applies.", {"type": "string"}),
    "RateLimit-Policy": ("The rate limits that apply.", {"type": "string"}),
    "WWW-Authenticate": ("`Bearer`, and the error of the token by RFC 6750.", {"type": "string"}),
}
# Rate limits are counted before all other checks, so every error response can report them.
HEADERS_OF_ALL = ("X-Request-ID", "RateLimit", "RateLimit-Policy")
ERROR_HEADERS = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def errors_of(route: RouteDeclaration) -> list[type[ServiceError]]:
    """Return every error that a route can return, its own first, one for each code."""
    errors = [*route.errors, *ERRORS_BY_ACCESS[route.access]]
    if route.reads_body:
        errors += ERRORS_OF_A_BODY
    if route.idempotent:
        errors += ERRORS_OF_A_KEY
    if route.conditional:
        errors.append(PreconditionFailed)
    if route.rate_limited:
        errors.append(RateLimited)
    errors += ERRORS_OF_ALL
    return list({error.code: error for error in reversed(errors)}.values())[::-1]


def problems_of(route: RouteDeclaration) -> dict[int, tuple[str, Schema]]:
    """Return the error responses of a route by status: the name and the Response Object of each."""
    found: dict[int, list[type[ServiceError]]] = {}
    for error in errors_of(route):
        found.setdefault(error.status, []).append(error)
    return {status: _problem_of(route, status, errors) for status, errors in sorted(found.items())}


def _problem_of(route: RouteDeclaration, status: int, errors: list[type[ServiceError]]) -> tuple[str, Schema]:
    errors = sorted(errors, key=lambda error: error.code)
    headers = [*HEADERS_OF_ALL, *ERROR_HEADERS.get(status, ())]
    if IdempotencyKeyInUse in errors:
        headers.append("Retry-After")
    name = "Or".join(error.code.title().replace("_", "") for error in errors)
    if _is_stored(route, status):
        headers.append("Idempotent-Replayed")
        name += "OrItAgain"
    # Keywords beside $ref hold together with it (JSON Schema 2020-12), and code generators take the type Problem.
    # They make no type of an allOf with another schema.
    problem = {
        "$ref": "#/components/schemas/Problem",
        "properties": {"status": {"const": status}, "code": {"enum": [error.code for error in errors]}},
    }
    return name, {
        "description": "\n".join(f"- `{error.code}`: {error.detail}" for error in errors),
        "headers": header_references(headers),
        "content": {
            PROBLEM_TYPE: {
                "schema": problem,
                "examples": {error.code: {"value": _problem_example(error)} for error in errors},
            }
        },
    }


def _is_stored(route: RouteDeclaration, status: int) -> bool:
    """Tell whether an error is stored under the idempotency key: errors of the use case are, others are not."""
    stored = {error.status for error in route.errors} - {error.status for error in ERRORS_OF_THE_GATEWAY} - NOT_STORED
    return route.idempotent and status in stored


def _problem_example(error: type[ServiceError]) -> Schema:
    wrong = ValidationFailed.field("items[0].quantity", "must be at least 1") if error is ValidationFailed else error()
    return problem(wrong, "019aac60-19f0-7a11-b2c3-d4e5f6071829", "/orders")


def problem_schema(codes: list[str]) -> Schema:
    field = {name: {"type": "string"} for name in FieldError.__dataclass_fields__}
    return {
        "type": "object",
        "description": "An error, as defined by RFC 9457. `code` is for programs, `detail` for people.",
        "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "instance": {"type": "string"},
            "code": {"type": "string", "enum": codes},
            "request_id": {"type": "string"},
            "errors": {
                "type": "array",
                "description": "The invalid fields.",
                "items": {"type": "object", "required": list(field), "properties": field},
            },
        },
    }


def header_references(names: Iterable[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
