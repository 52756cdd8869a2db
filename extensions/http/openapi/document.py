"""The OpenAPI 3.1 document of a service, generated from the declarations of its routes.

problems.py describes the errors of a route, schemas.py the bodies of requests and responses.
"""

import logging
import re
import sys
from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from contracts.base import Event
from contracts.examples import EXAMPLES, FILES, SENT
from extensions.http.message.conditional import NOT_MODIFIED
from extensions.http.message.request import Access
from extensions.http.openapi.problems import (
    ERRORS_OF_NO_ROUTE,
    HEADERS,
    errors_of,
    header_references,
    problem_schema,
    problems_of,
)
from extensions.http.openapi.schemas import Schema, page, page_name, query_fields, reference, schemas
from extensions.http.openapi.webhooks import parameters, webhooks
from extensions.http.routing.declaration import RouteDeclaration
from extensions.http.routing.route import routes_of

log = logging.getLogger(__name__)

HTTP_NO_CONTENT = 204
TAG_PATTERN = r'^(\*|(W/)?"[!#-~]*")$'
PARAMETER = re.compile(r"\{(\w+)\}")
SECURITY: dict[Access, list[Schema]] = {
    Access.ANYONE: [],
    Access.OPTIONAL: [{}, {"bearer": []}],
    Access.USER: [{"bearer": []}],
    Access.ADMIN: [{"bearer": ["admin"]}],
}
CALLERS = {
    Access.ANYONE: "Anyone may call it.",
    Access.OPTIONAL: "Anyone may call it; an access token, if sent, identifies the caller.",
    Access.USER: "Needs the access token of any user.",
    Access.ADMIN: "Needs the access token of an administrator.",
}
OTHER_TAGS = {
    "well-known": "What clients find at fixed paths (RFC 8615).",
    "aliases": "Other paths of the operations above, for old clients.",
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes a retry safe: the same key and body get the first response again, for at least 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "The `ETag` of the version you have seen: if the resource has changed since, nothing is done (412).",
    "schema": {"type": "string", "pattern": TAG_PATTERN},
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The `ETag` of the version you have: if it is still current, the response is 304, without a body.",
    "schema": {"type": "string", "pattern": TAG_PATTERN},
}
LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The `id` of the last event that you have: the stream continues after it.",
    "schema": {"type": "string", "maxLength": 64, "pattern": "^[0-9]+(-[0-9a-f-]+)?$"},
}


def document(service: type, info: Schema) -> Schema:
    """Describe all routes of a service class; `info` is OpenAPI's Info Object.

    A service that sends events to endpoints of users names their classes as `sent_events`.
    """
    routes, sent = routes_of(service), getattr(service, "sent_events", ())
    paths: dict[str, Schema] = {}
    for name, route in routes.items():
        operation = _Operation(service, name, route, routes)
        for path in (route.path, *route.aliases):
            paths.setdefault(path, {})[route.method.lower()] = operation.at(path)
    return {
        "openapi": "3.1.0",
        "info": info,
        "servers": [{"url": "/", "description": "The gateway that served this document."}],
        "tags": _tags(service, routes),
        "paths": paths,
        **({"webhooks": webhooks(sent, SENT)} if sent else {}),
        "components": _components(list(routes.values()), sent),
    }


class _Operation:
    """The Operation Objects of one route: one for its path, and one for each alias."""

    def __init__(self, service: type, name: str, route: RouteDeclaration, routes: dict[str, RouteDeclaration]) -> None:
        self.name, self.route, self.routes = name, route, routes
        doc: str = (getattr(service, name).__doc__ or "").strip()
        self.summary, _, self.details = doc.partition("\n")

    def at(self, path: str) -> Schema:
        """Return the Operation Object for `path`, the route's own or an alias."""
        route, is_alias = self.route, path != self.route.path
        notes = [re.sub(r"\s+", " ", self.details).strip(), CALLERS[route.access]]
        if is_alias:
            notes.insert(0, f"Another path for `{route.method} {route.path}`. Use that one in new programs.")
        operation: Schema = {
            "operationId": _alias_name(self.name, path) if is_alias else self.name,
            "tags": ["aliases" if is_alias else _tag(route.path)],
            "summary": self.summary.rstrip("."),
            "description": " ".join(filter(None, notes)),
            "security": SECURITY[route.access],
            "parameters": list(self._parameters(path)),
            "responses": self._responses(),
            "x-access": str(route.access),
        }
        if is_alias:
            operation |= {"deprecated": True, "x-alias-of": self.name}
        if route.body is not None:
            operation["requestBody"] = {
                "required": not route.body_optional,
                "content": {"application/json": {"schema": reference(route.body), **_example_of(route.body)}},
            }
        if route.consumes:
            content = {kind: {"schema": {"type": "string"}, **_file_of(self.name, kind)} for kind in route.consumes}
            operation["requestBody"] = {"required": True, "content": content}
        return {key: value for key, value in operation.items() if value or key == "security"}

    def _parameters(self, path: str) -> Iterator[Schema]:
        for name in PARAMETER.findall(path):
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
        for name, schema in query_fields(self.route.query).items():
            yield {"name": name, "in": "query", "schema": schema}
        if self.route.idempotent:
            yield {"$ref": "#/components/parameters/IdempotencyKey"}
        if self.route.is_stream:
            yield {"$ref": "#/components/parameters/LastEventId"}
        if self.route.conditional:
            name = "IfNoneMatch" if self.route.method == "GET" else "IfMatch"
            yield {"$ref": f"#/components/parameters/{name}"}

    def _responses(self) -> Schema:
        successes = {
            str(status): self._success(status) for status in sorted({self.route.status, *self.route.other_statuses})
        }
        problems = {
            str(status): {"$ref": f"#/components/responses/{name}"}
            for status, (name, _) in problems_of(self.route).items()
        }
        if self.route.conditional and self.route.method == "GET":
            successes[str(NOT_MODIFIED)] = _not_modified(self.route)
        return successes | problems

    def _success(self, status: int) -> Schema:
        route = self.route
        response: Schema = {
            "description": "Done; there is no body." if status == HTTP_NO_CONTENT else _description(route),
            "headers": header_references(_headers_of(route)),
        }
        if status != HTTP_NO_CONTENT:
            response["content"] = {
                kind: _content(route, kind) | _file_of(self.name, kind)
                for kind in (route.produces, *route.also_produces)
            }
        links = dict(self._links())
        return response | ({"links": links} if links else {})

    def _links(self) -> Iterator[tuple[str, Schema]]:
        """Yield the operations that take the id of the created resource, or of the first item of a list."""
        view, collection = self.route.response, (self.route.location or self.route.path).partition("/{")[0]
        paths = [PARAMETER.match(route.path.removeprefix(f"{collection}/")) for route in self.routes.values()]
        parameter = next((found[1] for found in paths if found), None)
        if parameter is None or view is None or not (self.route.location or self.route.paged):
            return
        field = parameter if parameter in view.model_fields else "id"
        where = f"$response.body#/items/0/{field}" if self.route.paged else f"$response.body#/{field}"
        for name, route in self.routes.items():
            if PARAMETER.findall(route.path) == [parameter]:
                yield name, {"operationId": name, "parameters": {parameter: where}}


def _tags(service: type, routes: dict[str, RouteDeclaration]) -> list[Schema]:
    """Return the Tag Objects: a tag for the first segment of each path, described by the module of its routes."""
    tags: dict[str, str] = {}
    for name, route in routes.items():
        tags.setdefault(_tag(route.path), _about(getattr(service, name).__module__))
    tags |= {name: text for name, text in OTHER_TAGS.items() if name in tags or name == "aliases"}
    return [{"name": name, "description": text} for name, text in tags.items()]


def _about(module: str) -> str:
    """Return the first line of a module's docstring without the path that it begins with."""
    text = (sys.modules[module].__doc__ or "").strip().partition("\n")[0]
    text = text.partition(": ")[2] or text
    return text[:1].upper() + text[1:]


def _components(routes: list[RouteDeclaration], sent: Sequence[type[Event]]) -> Schema:
    bodies = {route.body for route in routes if route.body}
    views = {route.response for route in routes if route.response}
    pages = {page_name(route.response): page(route.response) for route in routes if route.paged and route.response}
    codes = {error.code for route in routes for error in errors_of(route)}
    codes |= {error.code for error in ERRORS_OF_NO_ROUTE}
    problems = dict(problem for route in routes for problem in problems_of(route).values())
    return {
        "schemas": {
            **schemas(bodies, {*views, *sent}),
            **pages,
            "Problem": problem_schema(sorted(codes)),
        },
        "responses": dict(sorted(problems.items())),
        "parameters": {
            "IdempotencyKey": IDEMPOTENCY_KEY,
            "IfMatch": IF_MATCH,
            "IfNoneMatch": IF_NONE_MATCH,
            **({"LastEventId": LAST_EVENT_ID} if any(route.is_stream for route in routes) else {}),
            **parameters(sent),
        },
        "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in HEADERS.items()},
        "securitySchemes": {
            "bearer": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The `access_token` of POST /users/login. It is valid for 15 minutes.",
            }
        },
    }


def _headers_of(route: RouteDeclaration) -> list[str]:
    """Return the names of the headers of a success."""
    by_flag = {
        "Location": route.location,
        "Link": route.paged,
        "ETag": route.sends_etag,
        "Idempotent-Replayed": route.idempotent,
        "RateLimit": route.rate_limited,
        "RateLimit-Policy": route.rate_limited,
    }
    return ["X-Request-ID", *(name for name, is_sent in by_flag.items() if is_sent)]


def _not_modified(route: RouteDeclaration) -> Schema:
    return {
        "description": "The client's version is still current; there is no body.",
        "headers": header_references(_headers_of(route)),
    }


def _content(route: RouteDeclaration, kind: str) -> Schema:
    if route.response is None:
        schema = {"schema": {"type": "object" if kind == "application/json" else "string"}}
        return schema | ({"example": route.example} if route.example else {})
    example = _example_of(route.response)
    if not route.paged:
        return {"schema": reference(route.response), **example}
    page: Schema = {"schema": {"$ref": f"#/components/schemas/{page_name(route.response)}"}}
    return page | {name: {"items": [one], "next_cursor": None} for name, one in example.items()}


def _example_of(model: type[BaseModel]) -> Schema:
    """Return the `example` of a body or a response; empty if contracts/examples.py has none for the model."""
    if model not in EXAMPLES:
        log.warning("contracts/examples.py has no example of %s.%s", model.__module__, model.__qualname__)
        return {}
    return {"example": EXAMPLES[model]}


def _file_of(name: str, kind: str) -> Schema:
    """Return the `example` of a file that an operation takes or sends; empty if it is about none."""
    example = FILES.get(name, {}).get(kind)
    return {} if example is None else {"example": example}


def _description(route: RouteDeclaration) -> str:
    if route.is_stream:
        return "Server-sent events (WHATWG HTML, section 9.2). The response goes on until the connection ends."
    if route.response is None:
        return "The requested resource."
    text = (route.response.__doc__ or "").strip().partition("\n")[0]
    return f"A page of the list. Each item: {text}" if route.paged else text


def _tag(path: str) -> str:
    return path.split("/")[1].removeprefix(".").removesuffix(".json")


def _alias_name(name: str, path: str) -> str:
    return f"{name}__{re.sub(r'[^a-z]+', '_', path.lower()).strip('_')}"
