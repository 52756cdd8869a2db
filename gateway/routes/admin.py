"""/admin: sagas, dead letters and consistency checks for operators."""

from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID

from contracts.base import Json, Page
from contracts.errors import DeadLetterNotFound, InvalidState, ServiceError
from contracts.operations import (
    ConsistencyRequest,
    ConsistencyView,
    DeadLetterOwner,
    DeadLetterSearch,
    DeadLetterView,
)
from contracts.orders import SagaFilter, SagaView
from contracts.services import SERVICES, Services
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.route import route
from extensions.rpc.scatter_gather import call_each


class Routes:
    """The routes of operators."""

    services: Services

    @route("GET", "/admin/sagas", access=Access.ADMIN, query=SagaFilter, response=SagaView)
    def list_sagas(self, request: HttpRequest[None, SagaFilter]) -> Json[Page[SagaView]]:
        """List the orders that wait for a service, and for what; with `stuck`, those past the saga's deadline."""
        return self.services.orders.list_sagas(request.query, actor=request.actor)

    @route("GET", "/admin/dead-letters", access=Access.ADMIN, query=DeadLetterSearch, response=DeadLetterView)
    def list_dead_letters(self, request: HttpRequest[None, DeadLetterSearch]) -> Json[Page[DeadLetterView]]:
        """List the dead letters of all services, newest first."""
        pages = call_each(
            _owners(request.query.service),
            lambda name: self.services.operated(name).list_dead_letters(request.query, actor=request.actor),
        )
        for page in pages.values():
            if isinstance(page, ServiceError):
                raise page  # a list without one service would look complete
        return _merge(pages.values(), request.query.limit)

    @route(
        "POST",
        "/admin/dead-letters/{dead_letter_id}/replay",
        access=Access.ADMIN,
        query=DeadLetterOwner,
        response=DeadLetterView,
        status=202,
        errors=(DeadLetterNotFound, InvalidState),
    )
    def replay_dead_letter(
        self, request: HttpRequest[None, DeadLetterOwner], dead_letter_id: UUID
    ) -> Json[DeadLetterView]:
        """Put a dead letter back into the queue that it came from; 409 if it was replayed or cannot be replayed."""
        results = call_each(
            _owners(request.query.service),
            lambda name: self.services.operated(name).replay_dead_letter(dead_letter_id, actor=request.actor),
        )
        result = min(results.values(), key=_rank)
        if isinstance(result, ServiceError):
            raise result
        return cast("Json[DeadLetterView]", result)

    @route("GET", "/admin/consistency", access=Access.ADMIN, query=ConsistencyRequest, response=ConsistencyView)
    def check_consistency(self, request: HttpRequest[None, ConsistencyRequest]) -> Json[ConsistencyView]:
        """Compare the orders with stock, payments and notifications, and count the violations of each invariant."""
        services = self.services.within(request.remaining())
        return services.orders.check_consistency(request.query, actor=request.actor)


def _owners(service: str | None) -> tuple[str, ...]:
    return SERVICES if service is None else (service,)


def _merge(pages: Iterable[Json[Page[DeadLetterView]]], limit: int) -> Json[Page[DeadLetterView]]:
    """Return the newest of several lists as one page. Ids sort by time, so one cursor serves all of the lists."""
    items: list[dict[str, Any]] = []
    more = False
    for page in pages:
        items += page["items"]
        more = more or page["next_cursor"] is not None
    items.sort(key=lambda item: item["id"], reverse=True)
    more = more or len(items) > limit
    items = items[:limit]
    newest = {"items": items, "next_cursor": items[-1]["id"] if more else None}
    return cast("Json[Page[DeadLetterView]]", newest)


def _rank(result: Any) -> int:
    """Rank a result: first of the service that has the dead letter, then of unreachable services, then not found."""
    if not isinstance(result, ServiceError):
        return 0
    if isinstance(result, InvalidState):
        return 1
    return 3 if isinstance(result, DeadLetterNotFound) else 2
