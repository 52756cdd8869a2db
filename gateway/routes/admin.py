"""/admin: sagas, dead letters, refused events and consistency checks for operators."""

from collections.abc import Callable, Iterable
from typing import Any, cast
from uuid import UUID

from contracts.base import Json, Page, Replayed
from contracts.errors import (
    DeadLetterNotFound,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidState,
    ServiceError,
    UpstreamTimeout,
    ValidationFailed,
)
from contracts.operations import (
    ConsistencyRequest,
    ConsistencyView,
    DeadLetterGroups,
    DeadLetterOwner,
    DeadLetterResults,
    DeadLetterSearch,
    DeadLetterSelection,
    DeadLetterView,
    OperatedRpc,
    OperationalView,
    RefusedEvent,
    RefusedEventSearch,
)
from contracts.orders import SagaFilter, SagaView
from contracts.services import SERVICES, Services
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.declaration import EVENT_STREAM
from extensions.http.routing.route import route
from extensions.http.routing.streams import StreamResponse
from extensions.observability.circuits import Circuits
from extensions.rpc.scatter_gather import call_each
from gateway.live.provider import Live

BACKLOG_SECONDS = 1.5
STREAM_EXAMPLE = """\
retry: 2000

:

id: 1024-0
data: {"event":"order.confirmed","event_id":"0192d4e1-7c1b-7000-8000-000000000003","service":"orders",\
"at":"2026-11-22T09:30:01.000000Z","order_id":"0192d4e1-7c1b-7000-8000-000000000001","request_id":"c4f1",\
"causation_id":"0192d4e1-7c1b-7000-8000-000000000002","data":{"order_id":"0192d4e1-7c1b-7000-8000-000000000001",\
"user_id":"0192d4e1-7c1b-7000-8000-000000000009","total_amount":"149.90","currency":"TRY"}}

"""


class Routes:
    """The routes of operators."""

    services: Services
    streams: Live
    circuits: Circuits

    @route("GET", "/admin/events", access=Access.ADMIN, produces=EVENT_STREAM, example=STREAM_EXAMPLE)
    def stream_events(self, request: HttpRequest) -> StreamResponse:
        """Follow all events of the suite as they pass, as server-sent events.

        The `id` of an event is its position in the event log, which keeps events for seven days at most;
        `Last-Event-ID` continues after it, and `event: gap` says that events after it are gone. Secrets and personal
        data are left out. After a fault an event may come twice, with the same `event_id`. The stream ends, with
        `event: end`, before the access token expires: connect again with a new one.
        """
        return self.streams.events(request)

    @route("GET", "/admin/sagas", access=Access.ADMIN, service="orders", query=SagaFilter, response=SagaView)
    def list_sagas(self, request: HttpRequest[None, SagaFilter]) -> Json[Page[SagaView]]:
        """List the orders that wait for a service, and for what; with `stuck`, those past the saga's deadline."""
        return self.services.orders.list_sagas(request.query, actor=request.actor)

    @route("GET", "/admin/dead-letters", access=Access.ADMIN, query=DeadLetterSearch, response=DeadLetterView)
    def list_dead_letters(self, request: HttpRequest[None, DeadLetterSearch]) -> Json[Page[DeadLetterView]]:
        """List the dead letters of all services, newest first."""
        pages = self._ask_all(
            request.query.service, lambda service: service.list_dead_letters(request.query, actor=request.actor)
        )
        return cast("Json[Page[DeadLetterView]]", _merge(pages, request.query.limit))

    @route(
        "POST",
        "/admin/dead-letters/{dead_letter_id}/replay",
        access=Access.ADMIN,
        query=DeadLetterOwner,
        response=DeadLetterView,
        status=202,
        errors=(DeadLetterNotFound, InvalidState),
        idempotent=True,
    )
    def replay_dead_letter(
        self, request: HttpRequest[None, DeadLetterOwner], dead_letter_id: UUID
    ) -> Json[DeadLetterView]:
        """Put a dead letter back into the queue that it came from; 409 if it was replayed or cannot be replayed.

        After a 504 it may have been replayed. Replay it again if it is still listed: that has no second effect.
        """
        result = self._ask_owner(
            request.query.service,
            lambda service: service.replay_dead_letter(
                dead_letter_id, actor=request.actor, idempotency_key=request.idempotency_key
            ),
        )
        return cast("Json[DeadLetterView]", result)

    @route(
        "DELETE",
        "/admin/dead-letters/{dead_letter_id}",
        access=Access.ADMIN,
        query=DeadLetterOwner,
        status=204,
        errors=(DeadLetterNotFound, InvalidState),
    )
    def discard_dead_letter(self, request: HttpRequest[None, DeadLetterOwner], dead_letter_id: UUID) -> None:
        """Delete a dead letter, so that it will never be handled; 409 if it was replayed."""
        self._ask_owner(
            request.query.service, lambda service: service.discard_dead_letter(dead_letter_id, actor=request.actor)
        )

    @route("GET", "/admin/dead-letters/groups", access=Access.ADMIN, response=DeadLetterGroups)
    def group_dead_letters(self, request: HttpRequest) -> Json[DeadLetterGroups]:
        """Group the dead letters of all services that were not replayed by queue and reason, the largest first."""
        found = self._ask_all(None, lambda service: service.group_dead_letters(actor=request.actor))
        groups = sorted((group for groups in found for group in groups), key=lambda group: -group["count"])
        return cast("Json[DeadLetterGroups]", {"items": groups, "next_cursor": None})

    @route(
        "POST",
        "/admin/dead-letters/replay",
        access=Access.ADMIN,
        body=DeadLetterSelection,
        response=DeadLetterResults,
        idempotent=True,
    )
    def replay_dead_letters(self, request: HttpRequest[DeadLetterSelection]) -> Json[DeadLetterResults]:
        """Replay up to 100 dead letters, by their ids or of one group, each by itself: a result for each."""
        return self._for_each(
            request.body,
            lambda service: service.replay_dead_letters(
                request.body, actor=request.actor, idempotency_key=request.idempotency_key
            ),
        )

    @route(
        "POST",
        "/admin/dead-letters/discard",
        access=Access.ADMIN,
        body=DeadLetterSelection,
        response=DeadLetterResults,
        idempotent=True,
    )
    def discard_dead_letters(self, request: HttpRequest[DeadLetterSelection]) -> Json[DeadLetterResults]:
        """Discard up to 100 dead letters, by their ids or of one group, each by itself: a result for each."""
        return self._for_each(
            request.body,
            lambda service: service.discard_dead_letters(
                request.body, actor=request.actor, idempotency_key=request.idempotency_key
            ),
        )

    @route("GET", "/admin/refused-events", access=Access.ADMIN, query=RefusedEventSearch, response=RefusedEvent)
    def list_refused_events(self, request: HttpRequest[None, RefusedEventSearch]) -> Json[Page[RefusedEvent]]:
        """List the events in the outboxes that the broker does not take, with the reasons, newest first."""
        pages = self._ask_all(
            request.query.service, lambda service: service.list_refused_events(request.query, actor=request.actor)
        )
        return cast("Json[Page[RefusedEvent]]", _merge(pages, request.query.limit))

    @route("GET", "/admin/health", access=Access.ADMIN, response=OperationalView)
    def show_health(self, request: HttpRequest) -> Json[OperationalView]:
        """Show what waits in each service, and the circuit breakers; a service that does not respond is null."""
        services = self.services.within(BACKLOG_SECONDS)
        found = call_each(SERVICES, lambda name: services.operated(name).report_backlog(actor=request.actor))
        backlogs = {name: None if isinstance(one, ServiceError) else one for name, one in found.items()}
        circuits = [circuit.to_dict() for circuit in self.circuits.all()]
        return cast("Json[OperationalView]", {"services": backlogs, "circuits": circuits})

    @route("GET", "/admin/consistency", access=Access.ADMIN, query=ConsistencyRequest, response=ConsistencyView)
    def check_consistency(self, request: HttpRequest[None, ConsistencyRequest]) -> Json[ConsistencyView]:
        """Compare the orders with stock, payments and notifications, and count the violations of each invariant."""
        services = self.services.within(request.remaining())
        return services.orders.check_consistency(request.query, actor=request.actor)

    def _ask_all(self, service: str | None, ask: Callable[[OperatedRpc], Any]) -> list[Any]:
        """Return the results of one service or of all. Raises the error of any: a list without one looks complete."""
        results = call_each(_owners(service), lambda name: ask(self.services.operated(name)))
        for result in results.values():
            if isinstance(result, ServiceError):
                raise result
        return list(results.values())

    def _ask_owner(self, service: str | None, ask: Callable[[OperatedRpc], Any]) -> Any:
        """Return the result of the service that has the dead letter. Raises its error."""
        results = call_each(_owners(service), lambda name: ask(self.services.operated(name)))
        result = min(results.values(), key=_rank)
        if isinstance(result, ServiceError):
            raise result
        return result

    def _for_each(self, selection: DeadLetterSelection, ask: Callable[[OperatedRpc], Any]) -> Json[DeadLetterResults]:
        """Return the results of the service that has the group, or for each id that of the service that has it."""
        if selection.group is not None:
            (result,) = self._ask_all(_owner_of_group(selection.group), ask)
            return cast("Json[DeadLetterResults]", result)
        found = call_each(SERVICES, lambda name: ask(self.services.operated(name))).values()
        misused = next((one for one in found if isinstance(one, IdempotencyKeyReused | IdempotencyKeyInUse)), None)
        if misused is not None:
            raise misused
        results = _merge_results(selection.ids or (), found)
        is_replayed = all(isinstance(one, Replayed) for one in found)
        return cast("Json[DeadLetterResults]", Replayed(results)) if is_replayed else results


def _owner_of_group(group: str) -> str:
    """Return the service whose name the group begins with. Raises ValidationFailed."""
    service = group.partition("-")[0]
    if service not in SERVICES:
        raise ValidationFailed.field("group", "is not one of GET /admin/dead-letters/groups")
    return service


def _merge_results(ids: Iterable[UUID], found: Iterable[Any]) -> Json[DeadLetterResults]:
    """Return for each id the result of the service that has the dead letter, or else the error of one that is down."""
    best = {str(one): _failed(str(one), DeadLetterNotFound()) for one in ids}
    for results in found:
        down = [_failed(one, results) for one in best] if isinstance(results, ServiceError) else results["items"]
        for item in down:
            best[item["id"]] = min(best[item["id"]], item, key=_rank_of_result)
    return cast("Json[DeadLetterResults]", {"items": list(best.values()), "remaining": 0})


def _failed(dead_letter_id: str, error: ServiceError) -> dict[str, Any]:
    return {"id": dead_letter_id, "outcome": "failed", "code": error.code, "detail": str(error)}


def _rank_of_result(item: dict[str, Any]) -> int:
    if item["outcome"] != "failed":
        return 0
    return {InvalidState.code: 1, UpstreamTimeout.code: 2, DeadLetterNotFound.code: 4}.get(item["code"], 3)


def _owners(service: str | None) -> tuple[str, ...]:
    return SERVICES if service is None else (service,)


def _merge(pages: Iterable[Any], limit: int) -> dict[str, Any]:
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


def _rank(result: Any) -> int:
    """Rank a result: first of the service that has the dead letter, then of unreachable services, then not found.

    "Unknown" ranks before "nothing was done", which is true of the other service only.
    """
    if not isinstance(result, ServiceError):
        return 0
    if isinstance(result, InvalidState):
        return 1
    if isinstance(result, UpstreamTimeout):
        return 2
    return 4 if isinstance(result, DeadLetterNotFound) else 3
