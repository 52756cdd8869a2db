"""The runner of work items: claims them, executes them outside of any transaction, and records their results.

    @executes("authorisation", "settlement", limits=read_limits)
    def provider_calls(self) -> Handler: ...

Each kind has a lane. A lane claims due items with one statement, and executes each item in a greenlet with a deadline.
At most `Limits.concurrency` first attempts are executed at a time. Further attempts have places of their own, so that
failing items do not delay new ones. An execution that takes longer than `Limits.prompt` is slow: it gives its place to
another item, and continues in one of the places for slow ones. A recorder records all results that are due in one
transaction. It skips rows that another transaction has locked, and records those later. So an item that is slow, hangs,
fails or is locked delays only itself.

A method that has stored items calls `self.work.trigger(self.provider_calls, kind)`. The commit then wakes the lane of
that kind. Each lane also polls once every POLL_SECONDS, for items whose pause or lease has ended.
"""

import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import eventlet
from eventlet.event import Event as Signal
from nameko import config
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, register_entrypoint
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from contracts.base import Publish
from extensions.observability.instruments import WorkItemInstruments
from extensions.observability.metrics import Metrics
from extensions.observability.traces import start_trace
from extensions.runtime.backoff import Backoff
from extensions.runtime.interruptions import INTERRUPTIONS, Interrupted
from extensions.runtime.progress import Loop, loops_of
from extensions.storage import work_items
from extensions.storage.database_access import DatabaseAccess
from extensions.storage.engine import is_outage
from extensions.storage.periodic import PeriodicMethods
from extensions.storage.work_items import FailedExecution, Failure, Item, Later
from extensions.storage.work_items_breaker import WorkItemBreaker
from extensions.storage.work_items_recorder import Recorder, Result

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
# The least time between two claims of a lane. Items that become due in this time are claimed together.
CLAIM_INTERVAL_SECONDS = 0.03
# From the deadline of an execution to the end of the lease. The result is recorded in this time.
LEASE_MARGIN_SECONDS = 4.0
# How many executions that have become slow may continue for each place.
SLOW_TO_PROMPT = 3
STOP_SECONDS = 3.0
BACKLOG_SECONDS = 5.0


class Handler(Protocol):
    """What a service defines for its items. It may also be a work_items_recorder.RecordsFailures."""

    def prepare(self, session: Session, items: Sequence[Item]) -> Mapping[str, Any]:
        """Return the request of each item, by its key. Called in the transaction that claims the items.

        An item without a request is not executed; it is recorded with the outcome None.
        """

    def execute(self, request: Any) -> Sequence[Any]:
        """Make the call outside of the service, and return its outcomes, mostly one. No transaction is open."""

    def is_outage(self, error: BaseException) -> bool:
        """Tell whether this error of `execute` means that the called system does not work. A refusal does not."""

    def record(
        self, session: Session, outcomes: Mapping[str, Any], publish: Publish
    ) -> Mapping[str, str | Later | None]:
        """Record the outcome of each item, by its key. Returns the kind of its next step; None if it is finished.

        The next step is due now, or later: `Later(kind, seconds)`, with at most `Limits.longest_pause` seconds.

        An item whose rows another transaction has locked is left out of the result: it is recorded later. An outcome
        may be passed twice.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one lane; times are in seconds."""

    concurrency: int = 32
    """How many first attempts are executed at a time. For further attempts it is a quarter of this."""
    deadline: float = 6.0
    first_pause: float = 0.5
    longest_pause: float = 30.0
    max_attempts: int | None = None
    """None: attempts never run out."""
    prompt: float | None = None
    """An execution that takes longer is slow, and gives its place to another item. None: it keeps its place."""

    @property
    def places_again(self) -> int:
        """How many further attempts are executed at a time."""
        return max(1, self.concurrency // 4)

    @property
    def lease(self) -> float:
        """The length of a lease."""
        return self.deadline + LEASE_MARGIN_SECONDS

    def failure(self, item: Item, error: str) -> Failure:
        """Return the failed attempt of an item, with a random pause that grows with the number of attempts."""
        backoff = Backoff(first=min(self.longest_pause, self.first_pause * 2 ** min(item.attempts - 1, 30)))
        return Failure(item, error, backoff.next_pause(), abandoned=item.attempts == self.max_attempts)


@dataclass(frozen=True, slots=True)
class Execution:
    """An item that is executed since `began` (time.monotonic())."""

    item: Item
    began: float


class Lane:
    """Claims and executes the items of one kind."""

    def __init__(self, kind: str, limits: Limits, runner: "WorkItems") -> None:
        self.kind, self.limits, self._runner = kind, limits, runner
        # One for each kind: a provider that refunds nothing may authorise payments as ever.
        self.breaker = WorkItemBreaker()
        self.executing: dict[Any, Execution] = {}
        """The executions, by greenlet."""
        self._wakeup = Signal()
        self._may_be_more = False
        # After an error of a statement, which ends the transaction: the next claim prepares each item by itself.
        self._is_careful = False

    def wake(self) -> None:
        """Claim now."""
        if not self._wakeup.ready():
            self._wakeup.send("woken")

    def run(self) -> None:
        """Claim until the runner stops."""
        with loops_of(self._runner.container).running(f"work.{self.kind}") as loop:
            self._claim_all(loop)

    def _claim_all(self, loop: Loop) -> None:
        backoff = Backoff()
        while not self._runner.stopping:
            loop.report_progress()
            self._wakeup = Signal()
            next_claim = time.monotonic() + CLAIM_INTERVAL_SECONDS
            pause = POLL_SECONDS
            try:
                self._claim()
                backoff.reset()
                self._is_careful = False
            except ContainerBeingKilled:
                return
            except Exception as error:  # noqa: BLE001  (no error may end the loop)
                pause = backoff.next_pause()
                self._is_careful = not is_outage(error)
                _log_failure(f"the claim of {self.kind}", error, pause)
            loop.report_idle(pause)
            self._wakeup.wait(timeout=pause)
            eventlet.sleep(max(0.0, next_claim - time.monotonic()))

    def _claim(self) -> None:
        """Claim as many due items as the limits permit, and start to execute them."""
        fresh, again = self._free_places()
        breaker = self.breaker
        if not breaker.permits():
            return
        if is_probe := breaker.is_open:
            fresh, again = min(fresh, 1), min(again, 1)
        if fresh + again == 0:
            self._may_be_more = True
            return
        expires = time.monotonic() + self.limits.lease
        items, requests, handler = self._runner.in_transaction(functools.partial(self._claim_rows, fresh, again))
        if is_probe and items:
            breaker.probes()
        first = sum(item.attempts == 1 for item in items)
        self._may_be_more = first == fresh or len(items) - first == again
        for item in items:
            if item.key in requests:
                greenlet = eventlet.spawn(self._execute, item, requests[item.key], handler, expires)
                self.executing[greenlet] = Execution(item, time.monotonic())
            else:
                self._runner.recorder.add(Result(item, None, expires, self.limits))

    def _free_places(self) -> tuple[int, int]:
        """Return how many first attempts, and how many further ones, may begin."""
        executing = self.executing.values()
        first = [each for each in executing if each.item.attempts == 1]
        again = [each for each in executing if each.item.attempts > 1]
        return self._free(first, self.limits.concurrency), self._free(again, self.limits.places_again)

    def _free(self, executing: Sequence[Execution], places: int) -> int:
        """Return how many of `places` are free. Executions that have become slow hold none, up to a limit."""
        prompt, now = self.limits.prompt, time.monotonic()
        slow = 0 if prompt is None else sum(now - each.began > prompt for each in executing)
        return places - len(executing) + min(slow, SLOW_TO_PROMPT * places)

    def _claim_rows(self, fresh: int, again: int, work: Any, handler: Handler) -> tuple[list[Item], Any, Handler]:
        items = work_items.claim(
            work.session,
            self.kind,
            self._runner.owner,
            fresh=fresh,
            again=again,
            seconds=self.limits.lease,
            longest_pause=self.limits.longest_pause,
        )
        if not items:
            return items, {}, handler
        try:
            if not self._is_careful:
                return items, handler.prepare(work.session, items), handler
        except SQLAlchemyError:
            raise
        except Exception:
            log.exception("%d items of %s could not be prepared together", len(items), self.kind)
        requests = self._prepare_one_by_one(work.session, handler, items)
        return [item for item in items if item.key in requests], requests, handler

    def _prepare_one_by_one(self, session: Session, handler: Handler, items: Sequence[Item]) -> dict[str, Any]:
        """Return the requests of the items that can be prepared. The others are postponed with their error."""
        requests: dict[str, Any] = {}
        failures = []
        for item in items:
            try:
                with session.begin_nested():
                    prepared = handler.prepare(session, [item])
            except Exception as error:
                if is_outage(error):
                    raise
                failures.append(self.limits.failure(item, f"{type(error).__name__}: {error}"))
            else:
                requests |= prepared
        work_items.postpone(session, failures)
        return requests

    def _execute(self, item: Item, request: Any, handler: Handler, expires: float) -> None:
        """Execute one item, and hand its result to the recorder."""
        began = time.monotonic()
        try:
            error = self._ask(item, request, handler, expires)
            self._runner.instruments.attempted(self.kind, time.monotonic() - began, error)
        finally:
            self.executing.pop(eventlet.getcurrent(), None)
        if self._may_be_more or item.attempts > 1:
            self.wake()

    def _ask(self, item: Item, request: Any, handler: Handler, expires: float) -> BaseException | None:
        runner = self._runner
        error: Exception
        began_at, began = datetime.now(UTC), time.monotonic()
        try:
            with eventlet.Timeout(self.limits.deadline):
                outcomes = handler.execute(request)
            self.breaker.succeeded(item.key)
            for outcome in outcomes:
                runner.recorder.add(Result(item, outcome, expires, self.limits))
        except eventlet.Timeout:
            error = TimeoutError(f"no response within {self.limits.deadline:g} s; the outcome is unknown")
        except Exception as failure:  # noqa: BLE001  (any error concerns only this item)
            error = failure
        else:
            return None
        is_outage_of_it = isinstance(error, TimeoutError) or handler.is_outage(error)
        (self.breaker.failed if is_outage_of_it else self.breaker.succeeded)(item.key)
        attempt = FailedExecution(request, error, began_at, timedelta(seconds=time.monotonic() - began))
        failed = replace(self.limits.failure(item, f"{type(error).__name__}: {error}"), attempt=attempt)
        log.warning("attempt %d of %s %s failed: %s", item.attempts, self.kind, item.key, failed.error)
        runner.recorder.fail(failed)
        return error


class WorkItems(Entrypoint):
    """Runs the items of the given kinds in a service process. Instances of the service share the items."""

    periodic_methods = PeriodicMethods()
    storage = DatabaseAccess()
    metrics = Metrics()

    def __init__(self, kinds: Sequence[str], limits: Callable[[Mapping[str, Any]], Limits]) -> None:
        super().__init__()
        self._kinds, self._read_limits = kinds, limits
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self.stopping = False
        self.lanes: dict[str, Lane] = {}
        self.recorder: Any = None
        self.instruments: Any = None
        self._loops: list[Any] = []
        self._watch: Any = None

    def setup(self) -> None:
        """Read the limits, so that a wrong one stops the service at its start."""
        self.periodic_methods.register(self)
        limits = self._read_limits(config)
        self.lanes = {kind: Lane(kind, limits, self) for kind in self._kinds}
        self.recorder = Recorder(self.in_transaction, self._wake)
        self.instruments = WorkItemInstruments(self.metrics, self._kinds, lambda kind: self.lanes[kind].breaker.is_open)

    def start(self) -> None:
        """Start the lanes and the recorder. The lanes first claim the items that an earlier process left."""
        spawn = self.container.spawn_managed_thread
        self._loops = [spawn(lane.run, identifier=f"work.{lane.kind}") for lane in self.lanes.values()]
        loops_of(self.container).add(self.recorder.progress)
        self._loops.append(spawn(self.recorder.run, identifier="work.recorder"))
        if self.metrics.is_served:
            self._watch = spawn(self._watch_backlog, identifier="work.backlog")

    def trigger(self, *kinds: str) -> None:
        """Claim now: items of these kinds were committed, or of any kind if none is given."""
        for kind in kinds or self.lanes:
            self._wake(kind)

    def stop(self) -> None:
        """Claim no more items. Wait up to STOP_SECONDS for those that are executed, and end the leases of the rest."""
        self.stopping = True
        self.trigger()
        with eventlet.Timeout(STOP_SECONDS, False):
            while any(lane.executing for lane in self.lanes.values()):
                eventlet.sleep(0.02)
        left = self._kill_executions()
        if self._watch is not None:
            self._watch.kill()
        self.recorder.stop()
        for loop in self._loops:
            loop.wait()
        if left:
            self._release(left)

    def kill(self) -> None:
        """Claim no more items. The container kills the loops; other processes claim the items when the leases end."""
        self.stopping = True
        self._kill_executions()

    def in_transaction(self, step: Callable[[Any, Handler], Any]) -> Any:
        """Run `step(work, handler)` in a worker and in its own transaction, and return its result."""
        done = Signal()

        def handle_result(_worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            done.send((result, exc_info[1] if exc_info else None))
            return None, None

        self.container.spawn_worker(self, (step,), {}, handle_result=handle_result)
        result, error = done.wait()
        if error is not None:
            raise error
        return result

    def _wake(self, kind: str) -> None:
        if lane := self.lanes.get(kind):
            lane.wake()

    def _kill_executions(self) -> list[Item]:
        executing = [pair for lane in self.lanes.values() for pair in lane.executing.items()]
        for greenlet, _ in executing:
            greenlet.kill()
        return [execution.item for _, execution in executing]

    def _release(self, items: Sequence[Item]) -> None:
        try:
            self.in_transaction(lambda work, _: work_items.release(work.session, items))
        except Exception as error:  # noqa: BLE001  (the leases end by themselves)
            log.info("%d leases were not given back (%s)", len(items), error)

    def _watch_backlog(self) -> None:
        table = self.storage.table(work_items.TABLE)
        with loops_of(self.container).running("work.backlog") as loop:
            while True:
                loop.report_progress()
                try:
                    with self.storage.sessions() as session:
                        self.instruments.backlog = work_items.backlog(session, table)
                except Exception:  # noqa: BLE001  (an outage, which the lanes log)
                    self.instruments.backlog = None
                loop.report_idle(BACKLOG_SECONDS)
                eventlet.sleep(BACKLOG_SECONDS)


def executes(
    *kinds: str, limits: Callable[[Mapping[str, Any]], Limits]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run the work items of these kinds. The decorated method returns their Handler. `limits` reads the settings."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: Any, step: Callable[[Any, Handler], Any]) -> Any:
            start_trace({}, self.name)
            try:
                with self.work.transaction():
                    return step(self.work, method(self))
            except INTERRUPTIONS as error:
                raise Interrupted(f"{method.__name__} was interrupted by {type(error).__name__}: {error}") from error

        register_entrypoint(run, WorkItems(kinds, limits))
        return run

    return decorate


def _log_failure(what: str, error: Exception, pause: float) -> None:
    if is_outage(error):
        log.warning("%s waits (%s); next try in %.1f s", what, error, pause)
    else:
        log.error("%s failed; next try in %.1f s", what, pause, exc_info=error)
