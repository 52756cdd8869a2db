"""Periodic methods: run at an interval, or sooner when a transaction triggers them."""

import functools
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from eventlet.event import Event as Signal
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, SharedExtension, register_entrypoint

from contracts.errors import ServiceUnavailable, UpstreamTimeout
from extensions.observability.traces import start_trace
from extensions.runtime.interruptions import INTERRUPTIONS
from extensions.runtime.progress import Loop, loops_of, set_current_loop

log = logging.getLogger(__name__)

PAUSE_AFTER_FAILURE_SECONDS = 1.0


class PeriodicMethods(SharedExtension):
    """The periodic methods of a service, by name."""

    def __init__(self) -> None:
        super().__init__()
        self._periodic: dict[str, Periodic] = {}

    def register(self, periodic: "Periodic") -> None:
        """Add `periodic` under its method's name."""
        self._periodic[periodic.method_name] = periodic

    def trigger(self, method: str, *kinds: str) -> None:
        """Run `method` now, or once more after the current run; a method with @executes only for these kinds."""
        self._periodic[method].trigger(*kinds)


class Periodic(Entrypoint):
    """Runs its method every `seconds`, and when it is triggered; one run at a time in a process."""

    periodic_methods = PeriodicMethods()

    def __init__(self, seconds: float, after_gap: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.after_gap = after_gap
        self._triggered = Signal()
        self._loop: Any = None
        self._progress = Loop("")
        self._stopping = False

    def setup(self) -> None:
        """Register, so that the method can be triggered."""
        self.periodic_methods.register(self)

    def start(self) -> None:
        """Start the loop. The first run is immediate: after a restart there may be work to catch up with."""
        self._loop = self.container.spawn_managed_thread(self._run, identifier=f"periodic.{self.method_name}")

    def trigger(self) -> None:
        """Run now, or once more after the current run."""
        if not self._triggered.ready():
            self._triggered.send("triggered")

    def stop(self) -> None:
        """Start no further run. The container waits for the current one."""
        self._stopping = True
        self.trigger()
        if self._loop is not None:
            self._loop.wait()

    def kill(self) -> None:
        """Start no further run; the container kills the loop."""
        self._stopping = True

    def _run(self) -> None:
        with loops_of(self.container).running(f"periodic.{self.method_name}") as self._progress:
            self._fire_all()

    def _fire_all(self) -> None:
        fired_at = -math.inf
        at_once = False
        while not self._stopping:
            self._triggered = Signal()
            if self.after_gap and time.monotonic() - fired_at > self.seconds + self.after_gap:
                self._progress.report_idle(self.after_gap)
                self._triggered.wait(timeout=self.after_gap)
                fired_at = time.monotonic()
                continue
            fired_at = time.monotonic()  # before the run: the process may be suspended during it, too
            self._progress.report_progress()
            succeeded = self._fire(at_once)
            pause = self.seconds if succeeded else min(self.seconds, PAUSE_AFTER_FAILURE_SECONDS)
            self._progress.report_idle(pause)
            at_once = self._triggered.wait(timeout=pause) is not None or not succeeded

    def _fire(self, at_once: bool) -> bool:
        """Run the method in a worker if it is due, or even if it is not (`at_once`). Returns whether it succeeded."""
        done = Signal()

        def handle_result(_worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            done.send(result is True)
            return result, exc_info

        try:
            self.container.spawn_worker(self, (at_once, self._progress), {}, handle_result=handle_result)
        except ContainerBeingKilled:
            return False
        except ServiceUnavailable as error:
            log.warning("%s is postponed: %s", self.method_name, error)
            return False
        return bool(done.wait())


def periodic(
    *, seconds: float, transaction: bool = True, every_process: bool = False, after_gap: float = 0.0
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run the decorated method every `seconds`, once for all instances together, and when it is triggered.

    With `transaction`, the method runs in a transaction, in one instance at a time; without, it opens its own. With
    `every_process`, each instance runs it, without any access to the database: for methods that maintain the memory of
    their process. With `after_gap`, the first run waits for that many seconds, and so does the next run after the
    process was suspended. A run that fails is logged and repeated after PAUSE_AFTER_FAILURE_SECONDS.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        def fire(service: Any, at_once: bool) -> None:
            if transaction:
                with service.work.transaction():
                    if service.work.claim_timer(method.__name__, seconds, at_once=at_once):
                        method(service)
            elif every_process or at_once or _is_due(service.work, method.__name__, seconds):
                method(service)

        @functools.wraps(method)
        def run(self: Any, at_once: bool, loop: Loop | None = None) -> bool:
            start_trace({}, self.name)
            set_current_loop(loop)  # each transaction of a long run is progress
            try:
                fire(self, at_once)
            except (ServiceUnavailable, UpstreamTimeout) as error:
                log.info("%s is postponed: %s", method.__name__, error)
                return False
            except (Exception, *INTERRUPTIONS):
                log.exception("%s failed and will be repeated soon", method.__name__)
                return False
            return True

        register_entrypoint(run, Periodic(seconds, after_gap))
        return run

    return decorate


def _is_due(work: Any, name: str, seconds: float) -> bool:
    with work.transaction():
        return bool(work.claim_timer(name, seconds))
