"""/admin: what an operator sees of the sagas, the dead letters and the books, and can do about them."""

from collections.abc import Iterable
from typing import Any

from contracts.base import DEFAULT_PAGE
from contracts.errors import DeadLetterNotFound, InvalidState, ServiceError
from contracts.operations import (
    ConsistencyRequest,
    ConsistencyView,
    DeadLetterFilter,
    DeadLetterOwner,
    DeadLetterView,
)
from contracts.orders import SagaFilter, SagaView
from contracts.services import SERVICES
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.route import route
from extensions.rpc.scatter_gather import call_each


class Routes:
    """What operators see and do."""

    services: Any

    @route("GET", "/admin/sagas", access=Access.ADMIN, query=SagaFilter, response=SagaView)
    def list_sagas(self, request: HttpRequest) -> Any:
        """List the orders that wait for something, and for what; with `stuck`, those that wait for too long."""
        return self.services.orders.list_sagas(**request.query, actor=request.actor)

    @route("GET", "/admin/dead-letters", access=Access.ADMIN, query=DeadLetterFilter, response=DeadLetterView)
    def list_dead_letters(self, request: HttpRequest) -> Any:
        """List what could not be handled, of all services, newest first."""
        query = dict(request.query)
        names = _owners(query.pop("service", None))
        pages = call_each(
            names, lambda name: getattr(self.services, name).list_dead_letters(**query, actor=request.actor)
        )
        for page in pages.values():
            if isinstance(page, ServiceError):
                raise page  # a list with a hole in it would look complete
        return _merge(pages.values(), query.get("limit", DEFAULT_PAGE))

    @route(
        "POST",
        "/admin/dead-letters/{dead_letter_id}/replay",
        access=Access.ADMIN,
        query=DeadLetterOwner,
        response=DeadLetterView,
        status=202,
        errors=(DeadLetterNotFound, InvalidState),
    )
    def replay_dead_letter(self, request: HttpRequest, dead_letter_id: str) -> Any:
        """Put a dead letter back into the queue that it came from; 409 if that was done already, or cannot be."""
        answers = call_each(
            _owners(request.query.get("service")),
            lambda name: getattr(self.services, name).replay_dead_letter(
                dead_letter_id=dead_letter_id, actor=request.actor
            ),
        )
        answer = min(answers.values(), key=_rank)
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    @route("GET", "/admin/consistency", access=Access.ADMIN, query=ConsistencyRequest, response=ConsistencyView)
    def check_consistency(self, request: HttpRequest) -> Any:
        """Count whatever breaks an invariant: orders against stock, money, notifications, outboxes, dead letters."""
        services = self.services.within(request.remaining())
        return services.orders.check_consistency(**request.query, actor=request.actor)


def _owners(service: str | None) -> tuple[str, ...]:
    return SERVICES if service is None else (service,)


def _merge(pages: Iterable[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Return the newest of several lists as one page. Ids sort by time, so one cursor serves all of the lists."""
    items: list[dict[str, Any]] = []
    more = False
    for page in pages:
        items += page["items"]
        more = more or page["next_cursor"] is not None
    items.sort(key=lambda item: item["id"], reverse=True)
    more = more or len(items) > limit
    items = items[:limit]
    return {"items": items, "next_cursor": items[-1]["id"] if more else None}


def _rank(answer: Any) -> int:
    """Only one service knows a dead letter: what that one says comes first, then whatever leaves the question open."""
    if not isinstance(answer, ServiceError):
        return 0
    if isinstance(answer, InvalidState):
        return 1
    return 3 if isinstance(answer, DeadLetterNotFound) else 2
