"""Work that is done every so many seconds, or sooner when a transaction asks for it."""

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

log = logging.getLogger(__name__)

PAUSE_AFTER_FAILURE_SECONDS = 1.0


class PeriodicMethods(SharedExtension):
    """Wakes the periodic methods of a service by name."""

    def __init__(self) -> None:
        super().__init__()
        self._periodic: dict[str, Periodic] = {}

    def register(self, periodic: "Periodic") -> None:
        """Make `periodic` known under its method's name."""
        self._periodic[periodic.method_name] = periodic

    def ring(self, method: str) -> None:
        """Run `method` now, or once more when it is running."""
        self._periodic[method].wake()


class Periodic(Entrypoint):
    """Looks every `seconds` whether its method is due, or is woken; never twice at once in one process."""

    alarms = PeriodicMethods()

    def __init__(self, seconds: float, after_gap: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.after_gap = after_gap
        self._wakeup = Signal()
        self._loop: Any = None
        self._stopping = False

    def setup(self) -> None:
        """Become wakeable."""
        self.alarms.register(self)

    def start(self) -> None:
        """Begin to fire, at once for the first time: a restarted process has something to catch up with."""
        self._loop = self.container.spawn_managed_thread(self._run, identifier=f"periodic.{self.method_name}")

    def wake(self) -> None:
        """Fire now, or once more after the run that is under way."""
        if not self._wakeup.ready():
            self._wakeup.send("woken")

    def stop(self) -> None:
        """Fire no more; a run that is under way is finished by the container."""
        self._stopping = True
        self.wake()
        if self._loop is not None:
            self._loop.wait()

    def kill(self) -> None:
        """Fire no more; the container kills the loop."""
        self._stopping = True

    def _run(self) -> None:
        fired_at = -math.inf
        at_once = False
        while not self._stopping:
            self._wakeup = Signal()
            if self.after_gap and time.monotonic() - fired_at > self.seconds + self.after_gap:
                self._wakeup.wait(timeout=self.after_gap)
                fired_at = time.monotonic()
                continue
            succeeded = self._fire(at_once)
            fired_at = time.monotonic()
            pause = self.seconds if succeeded else min(self.seconds, PAUSE_AFTER_FAILURE_SECONDS)
            at_once = self._wakeup.wait(timeout=pause) is not None or not succeeded

    def _fire(self, at_once: bool) -> bool:
        """Run the method in a worker, if it is due or has to run `at_once`. Tells whether that succeeded."""
        done = Signal()

        def handle_result(_worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            done.send(result is True)
            return result, exc_info

        try:
            self.container.spawn_worker(self, (at_once,), {}, handle_result=handle_result)
        except ContainerBeingKilled:
            return False
        return bool(done.wait())


def periodic(
    *, seconds: float, transaction: bool = True, every_process: bool = False, after_gap: float = 0.0
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run the decorated method once every `seconds`, however many replicas there are, and when it is woken.

    With `transaction`, it runs in one, and in one replica at a time; without, the method opens its own. With
    `every_process`, each replica runs it, for what it keeps in its own memory; then nothing is asked of a database.
    With `after_gap`, it holds back for so many seconds at the start and whenever the process has been standing still.
    A failure is logged, and tried again after a second.
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
        def run(self: Any, at_once: bool) -> bool:
            start_trace({}, self.name)
            try:
                fire(self, at_once)
            except (ServiceUnavailable, UpstreamTimeout) as error:
                log.info("%s waits: %s", method.__name__, error)
                return False
            except (Exception, *INTERRUPTIONS):
                log.exception("%s failed; it runs again soon", method.__name__)
                return False
            return True

        register_entrypoint(run, Periodic(seconds, after_gap))
        return run

    return decorate


def _is_due(work: Any, name: str, seconds: float) -> bool:
    with work.transaction():
        return bool(work.claim_timer(name, seconds))
