"""The checks before a handler runs, in order: rate limits, authentication, then path, query, headers and body."""

from collections.abc import Callable
from typing import cast

from extensions.http.limits.rate_limits import RequestLimits
from extensions.http.message.conditional import precondition
from extensions.http.message.request import HttpRequest, StreamedBody
from extensions.http.routing.authentication import VerifiedTokens
from extensions.http.routing.declaration import NoFields, RouteDeclaration


def admit(declaration: RouteDeclaration, request: HttpRequest, limits: RequestLimits, tokens: VerifiedTokens) -> None:
    """Count a request against the rate limits and authenticate its caller. Raises ServiceError."""
    if declaration.rate_limited:
        # Health probes request shared responses from our own network, so private addresses are not counted there.
        limits.admit_address(request, declaration.rate_limit, public_only=not declaration.sheds_load)
    try:
        request.authenticate(declaration.access, tokens.verify)
    finally:  # a caller without permission is counted as well
        limits.admit_user(request)


def validate(
    declaration: RouteDeclaration,
    request: HttpRequest,
    raw_arguments: dict[str, str],
    read_body: Callable[[], bytes],
) -> None:
    """Validate an admitted request; `raw_arguments` are the path's parameters. Raises ServiceError."""
    request.check_accept(declaration.produces, *declaration.also_produces)
    request.read_arguments(raw_arguments)
    request.read_query(declaration.query)
    if declaration.idempotent:
        request.read_idempotency_key()
        request.instance = declaration.path.format(**request.arguments)
    if declaration.conditional and declaration.method != "GET":
        request.precondition = precondition(request.headers)
    if declaration.consumes:
        request.check_streamed_type(declaration.consumes)
        request.pieces = cast("StreamedBody", read_body).pieces
    elif declaration.reads_body:
        _validate_body(declaration, request, read_body)


def _validate_body(declaration: RouteDeclaration, request: HttpRequest, read_body: Callable[[], bytes]) -> None:
    # Only the end of a chunked body says whether it is empty. An empty one needs no type.
    is_chunked = "transfer-encoding" in request.headers
    if request.has_body and not is_chunked:
        request.check_body_type()
    body = read_body()
    if is_chunked and body:
        request.check_body_type()
    if not body and declaration.body is not None and declaration.body_optional:
        request.use_default_body(declaration.body)
    elif body or declaration.body is not None:
        request.read_body(declaration.body or NoFields, body)
