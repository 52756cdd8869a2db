"""Every operation of an OpenAPI document as a request for the HTTP clients of editors (`.http` files)."""

import json
import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
ADMIN_LOGIN = {"email": "admin@example.com", "password": "Demo-pass-2026!"}
ID = "00000000-0000-7000-8000-000000000000"
HEAD = """\
# Every request of the API, for the HTTP client of an editor. Written by `make docs` from openapi.json; do not edit.
# `make run` writes a copy with the address of its gateway: var/api.http.
# Send `register` once, then `login`, and `login_as_admin` before requests that need an administrator.
# Fill in the ids yourself.

@host = http://127.0.0.1:8000
"""
TOKENS = {
    "user": "{{login.response.body.access_token}}",
    "admin": "{{login_as_admin.response.body.access_token}}",
}


def requests(document: Schema) -> str:
    """Return the content of the file. Aliases are left out: they are the same operations."""
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "x-alias-of" not in operation
    ]
    ids = dict.fromkeys(name for _, path, _ in operations for name in re.findall(r"\{(\w+)\}", path))
    variables = "".join(f"@{name} = {ID}\n" for name in ids)
    login = _request(
        "login_as_admin", "Log in as the demo shop's administrator", "post", "/users/login", [], ADMIN_LOGIN
    )
    return "\n".join([HEAD + variables, login, *(_operation(*operation) for operation in operations)])


def _operation(method: str, path: str, operation: Schema) -> str:
    token = TOKENS.get(operation["x-access"])
    headers = [f"Authorization: Bearer {token}"] if token else []
    if {"$ref": "#/components/parameters/IdempotencyKey"} in operation.get("parameters", ()):
        headers.append("Idempotency-Key: {{$guid}}")
    kind, content = next(iter(operation.get("requestBody", {}).get("content", {}).items()), ("", {}))
    target = re.sub(r"\{(\w+)\}", r"{{\1}}", path)
    return _request(
        operation["operationId"], operation["summary"], method, target, headers, content.get("example"), kind
    )


def _request(
    name: str, title: str, method: str, target: str, headers: list[str], body: Any, kind: str = "application/json"
) -> str:
    return "\n".join(_lines(name, title, f"{method.upper()} {{{{host}}}}{target}", headers, body, kind)) + "\n"


def _lines(name: str, title: str, line: str, headers: list[str], body: Any, kind: str) -> Iterator[str]:
    yield f"### {title}"
    yield f"# @name {name}"
    yield line
    yield from headers
    if body is not None:
        yield f"Content-Type: {kind}"
        yield ""
        yield body.replace("\r\n", "\n") if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
