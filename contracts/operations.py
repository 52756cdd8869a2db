"""What every service tells its operators, and what they may ask: dead letters, and whether everything adds up."""

from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StrictBool

from contracts.base import Instant, PageRequest, Request, Text, View
from contracts.services import SERVICES

if TYPE_CHECKING:
    ServiceName = str  # a type checker cannot read the registry
else:
    ServiceName = Literal[SERVICES]
Name = Annotated[Text, Field(min_length=1, max_length=255)]

# Requests


class DeadLetterFilter(PageRequest):
    """What GET /admin/dead-letters takes: those that wait for somebody, unless `replayed` asks for the others."""

    service: ServiceName | None = None
    queue: Name | None = None
    event: Name | None = None
    replayed: StrictBool = False


class DeadLetterOwner(Request):
    """Where to look for a dead letter; everywhere if it does not say."""

    service: ServiceName | None = None


class ConsistencyRequest(Request):
    """What GET /admin/consistency takes: with `since`, only orders that were made from then on are compared."""

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


class CheckView(View):
    """One invariant: how many things break it, and the ids of the first of them."""

    name: str
    count: int
    ids: tuple[str, ...]


class LivenessView(View):
    """The process answers."""

    status: Literal["ok"]


class ReadinessView(View):
    """The suite takes orders; `degraded` where it is slower than it could be. The parts of each service by name."""

    status: Literal["ok", "degraded"]
    services: dict[str, dict[str, Literal["ok", "down"]]]


class ConsistencyView(View):
    """Whether everything adds up. At rest, that is with nothing in flight, all counts are zero."""

    at_rest: bool
    in_flight: int
    checks: tuple[CheckView, ...]
