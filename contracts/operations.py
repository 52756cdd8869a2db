"""What every service offers its operators: health, dead letters and consistency audits."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, Self, TypedDict
from uuid import UUID

from pydantic import BeforeValidator, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from contracts.base import (
    DEFAULT_PAGE,
    OPERATOR,
    Actor,
    Cursor,
    Id,
    Instant,
    Json,
    Page,
    PageLimit,
    PageRequest,
    Request,
    View,
    at_most,
)
from contracts.text import Text


def _service_names() -> tuple[str, ...]:
    from contracts.services import SERVICES  # it imports the interfaces below

    return SERVICES


def _in_registry(value: object) -> object:
    if value not in _service_names():
        *names, last = (f"'{name}'" for name in _service_names())
        raise PydanticCustomError("literal_error", "", {"expected": f"{', '.join(names)} or {last}"})
    return value


def _list_names(schema: dict[str, Any]) -> None:
    schema["enum"] = list(_service_names())


ServiceName = Annotated[str, BeforeValidator(_in_registry), Field(json_schema_extra=_list_names)]
"""The name of a service in the registry (contracts/services.py)."""
Name = Annotated[Text, Field(min_length=1, max_length=255)]
MAX_SELECTED = 100
"""The most dead letters that one call replays or discards."""

# Requests


class DeadLetterFilter(PageRequest):
    """Which dead letters of a service to list: those not replayed yet, or with `replayed`, those that were.

    `group` is one of GET /admin/dead-letters/groups, `correlation_id` the id of the order that a message is about.
    """

    # Repeated from PageRequest, so that they are the first arguments of a call (extensions/rpc/signature.py).
    limit: PageLimit = DEFAULT_PAGE
    cursor: Cursor | None = None
    queue: Name | None = None
    event: Name | None = None
    replayed: StrictBool = False
    group: Name | None = None
    correlation_id: Name | None = None


class DeadLetterSearch(DeadLetterFilter):
    """The query of GET /admin/dead-letters. Without `service`, it lists the dead letters of all services."""

    service: ServiceName | None = None


class DeadLetterOwner(Request):
    """The service that has a dead letter. If it is not stated, the gateway asks all services."""

    service: ServiceName | None = None


class DeadLetterSelection(Request):
    """The dead letters to replay or discard: these, or the oldest 100 of a group that were not replayed yet."""

    ids: Annotated[tuple[Id, ...], Field(min_length=1, max_length=MAX_SELECTED), at_most(MAX_SELECTED)] | None = None
    group: Name | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.ids is None) == (self.group is None):
            message = "state either `ids` or `group`"
            raise ValueError(message)
        return self


class RefusedEventSearch(PageRequest):
    """The query of GET /admin/refused-events. Without `service`, it lists those of all services."""

    service: ServiceName | None = None


class ConsistencyRequest(Request):
    """The query of GET /admin/consistency. `since`: compare only orders that were created from this time on."""

    since: Instant | None = None


# Views


class DeadLetterView(View):
    """A message that could not be handled: from where, why, and how often it was tried. `body` is its beginning."""

    id: UUID
    service: str
    queue: str
    event: str | None
    message_id: str | None
    correlation_id: str | None
    body: str
    headers: dict[str, Any]
    error: str
    attempts: int
    died_at: Instant
    replayed_at: Instant | None
    replayed_by: str | None
    is_forged: bool
    """Its sender had no permission to send it there. It cannot be replayed."""
    has_failed_again: bool
    """The same message was replayed before from an older dead letter, and could not be handled again."""


class DeadLetterGroup(View):
    """Dead letters of one queue with the same reason, apart from numbers and ids. `error` is that of the newest."""

    group: str
    service: str
    queue: str
    event: str | None
    error: str
    count: int
    failed_again: int
    """How many of them were replayed before, and could not be handled again."""
    oldest_at: Instant
    newest_at: Instant


class DeadLetterGroups(View):
    """All groups, the largest first: of each service at most 100."""

    items: tuple[DeadLetterGroup, ...]
    next_cursor: None = None


class DeadLetterResult(View):
    """What became of one dead letter; for `failed` the code and the detail of the error."""

    id: UUID
    outcome: Literal["replayed", "discarded", "failed"]
    code: str | None = None
    detail: str | None = None


class DeadLetterResults(View):
    """A result for each selected dead letter. `remaining`: how many of the group are left."""

    items: tuple[DeadLetterResult, ...]
    remaining: int = 0


class RefusedEvent(View):
    """An event in the outbox that the broker has not taken yet: why, how often it was tried, and when it will be."""

    id: UUID
    service: str
    event: str
    correlation_id: str
    error: str
    attempts: int
    next_try_at: Instant
    created_at: Instant


class CheckView(View):
    """One invariant: the number of its violations, and the ids of the first ones."""

    name: str
    count: int
    ids: tuple[str, ...]


class LivenessView(View):
    """The process responds."""

    status: Literal["ok"]


class ReadinessView(View):
    """This gateway serves its callers; `degraded` where a part of a service is down. The parts of each service by name.

    A service that does not respond has the one part `service`, which is down.
    """

    status: Literal["ok", "degraded"]
    services: dict[str, dict[str, Literal["ok", "down"]]]


class CircuitView(View):
    """A circuit breaker of one process: `name` is the called service, or the kind of work for an outside party."""

    name: str
    state: Literal["closed", "half_open", "open"]


class BacklogView(View):
    """What waits in a service: events in its outbox, those of them that the broker refused, and dead letters.

    At most 10,000 events are counted. `circuits` are those of the process that responded.
    """

    outbox: int
    outbox_oldest_seconds: float
    refused_events: int
    dead_letters: int
    circuits: tuple[CircuitView, ...]


class OperationalView(View):
    """The backlog of each service, null where it does not respond; and the circuit breakers of this gateway."""

    services: dict[str, BacklogView | None]
    circuits: tuple[CircuitView, ...]


class ConsistencyView(View):
    """The result of a consistency check. When nothing is in flight (at rest), all counts must be zero."""

    at_rest: bool
    in_flight: int
    checks: tuple[CheckView, ...]


HealthStatus = Literal["ok", "degraded", "failing"]
"""`degraded`: a server that the service uses is away or slow. `failing`: a loop of the process is stuck, restart it."""


class Health(TypedDict):
    """The state of a service: of each of its parts `ok`, or what is wrong with it."""

    status: HealthStatus
    parts: dict[str, str]


class Summary(TypedDict):
    """A number of things, and the ids of some of them."""

    count: int
    ids: list[str]


class CheckResult(TypedDict):
    """A CheckView in plain JSON."""

    name: str
    count: int
    ids: list[str]


class Audit(TypedDict):
    """One service's part of a consistency check (orders/reconciliation.py)."""

    outbox: Summary
    dead_letters: Summary
    checks: list[CheckResult]
    fingerprints: dict[str, list[list[Any]]]
    """For each kind of record `[range, number of rows, sum of their hashes]`."""


# RPC


class OperatedRpc(Protocol):
    """RPC methods of every service with a database."""

    def health(self) -> Health:
        """Report the state of the service and of the servers that it needs."""

    def list_dead_letters(self, wanted: DeadLetterFilter, *, actor: Actor = OPERATOR) -> Json[Page[DeadLetterView]]:
        """List dead letters, newest first (admin)."""

    def replay_dead_letter(
        self, dead_letter_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[DeadLetterView]:
        """Put a dead letter back into the queue it came from (admin). It stays on record, with the time of the replay.

        Raises DeadLetterNotFound, InvalidState, DeadLetterForged.
        """

    def discard_dead_letter(self, dead_letter_id: UUID, *, actor: Actor = OPERATOR) -> None:
        """Delete a dead letter, so that it will never be handled (admin). Raises DeadLetterNotFound."""

    def group_dead_letters(self, *, actor: Actor = OPERATOR) -> list[Json[DeadLetterGroup]]:
        """Return the dead letters that were not replayed yet by queue and reason, the largest groups first (admin)."""

    def replay_dead_letters(
        self, selection: DeadLetterSelection, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[DeadLetterResults]:
        """Replay several dead letters, each by itself (admin)."""

    def discard_dead_letters(
        self, selection: DeadLetterSelection, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[DeadLetterResults]:
        """Discard several dead letters, each by itself (admin)."""

    def list_refused_events(self, wanted: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[RefusedEvent]]:
        """List the events in the outbox that the broker did not take so far, newest first (admin)."""

    def report_backlog(self, *, actor: Actor = OPERATOR) -> Json[BacklogView]:
        """Return what waits in the service, and the circuit breakers of this process (admin)."""

    def audit(self, since: str, bounds: Sequence[str] = (), *, actor: Actor = OPERATOR) -> Audit:
        """Return the checks that the service can make alone, and fingerprints of its records about orders (admin).

        `since` is the order id that the first range begins with, `bounds` the order ids that the next ones begin with.
        """


class ParticipantRpc(OperatedRpc, Protocol):
    """RPC methods of every service that keeps records about orders."""

    def audit_rows(self, ranges: Sequence[Sequence[str | None]], *, actor: Actor = OPERATOR) -> dict[str, Any]:
        """Return the records about each order of some ranges of ids, `[first, first after it | None]` (admin)."""
