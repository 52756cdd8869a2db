"""Work that is done every so many seconds, or sooner when a transaction asks for it."""

import functools
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import eventlet
from eventlet.event import Event as Signal
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, SharedExtension, register_entrypoint
from sqlalchemy import func, select

from contracts.errors import ServiceUnavailable
from extensions.telemetry import start_trace

log = logging.getLogger(__name__)

PAUSE_AFTER_FAILURE_SECONDS = 1.0


class Alarms(SharedExtension):
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
    """Fires its method every `seconds`, never twice at once in one process."""

    alarms = Alarms()

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
            self._wakeup.send()

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
        while not self._stopping:
            self._wakeup = Signal()
            if self.after_gap and time.monotonic() - fired_at > self.seconds + self.after_gap:
                self._wakeup.wait(timeout=self.after_gap)
                fired_at = time.monotonic()
                continue
            succeeded = self._fire()
            fired_at = time.monotonic()
            self._wakeup.wait(timeout=self.seconds if succeeded else min(self.seconds, PAUSE_AFTER_FAILURE_SECONDS))

    def _fire(self) -> bool:
        """Run the method in a worker. Tells whether it succeeded."""
        done = Signal()

        def handle_result(_worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            done.send(result is True)
            return result, exc_info

        try:
            self.container.spawn_worker(self, (), {}, handle_result=handle_result)
        except ContainerBeingKilled:
            return False
        return bool(done.wait())


def periodic(
    *, seconds: float, transaction: bool = True, after_gap: float = 0.0
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run the decorated method every `seconds`; a failure is logged, and tried again after a second.

    With `transaction`, it runs in one, and in one replica at a time; without, the method opens its own.
    With `after_gap`, it holds back for so many seconds at the start and whenever the process has been standing still.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: Any) -> bool:
            start_trace({}, self.name)
            try:
                if transaction:
                    _in_one_replica(self.work, method, self)
                else:
                    method(self)
            except ServiceUnavailable as error:
                log.info("%s waits: %s", method.__name__, error)
                return False
            except (Exception, eventlet.Timeout):  # a Timeout is no Exception, and would end the loop
                log.exception("%s failed; it runs again soon", method.__name__)
                return False
            return True

        register_entrypoint(run, Periodic(seconds, after_gap))
        return run

    return decorate


def _in_one_replica(work: Any, method: Callable[..., Any], service: Any) -> None:
    """Run `method` in a transaction, unless another replica is running it now."""
    with work.transaction() as session:
        if session.scalar(select(func.pg_try_advisory_xact_lock(func.hashtext(method.__name__)))):
            method(service)
