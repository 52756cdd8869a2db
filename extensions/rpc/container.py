"""Our overrides of Nameko's container: they omit its debug logging and its call ids for each worker.

A free worker is awaited for WORKER_SECONDS at most, and each worker settles its message: `handle_result` is called even
if the worker was killed before it began. Otherwise whoever waits for that result would wait for ever, a stop too.

The setting SERVICE_CONTAINER_CLS chooses between Container and Nameko's own `nameko.containers.ServiceContainer`. All
extensions work with either.
"""

import logging
import sys
from functools import cached_property
from typing import Any

import eventlet
from nameko import config
from nameko.containers import ServiceContainer, WorkerContext, new_call_id
from nameko.exceptions import ContainerBeingKilled

from contracts.errors import ServiceUnavailable
from extensions.runtime.progress import loops_of
from extensions.runtime.watchdog import Watchdog

log = logging.getLogger(__name__)

# How long the start of a worker waits while all of them are busy.
WORKER_SECONDS = 10.0


class Worker(WorkerContext):
    """A worker's context whose call id is generated on first use, not for each worker."""

    def __init__(  # not super().__init__(), which generates a call id and a stack of call ids
        self, container: Any, service: Any, entrypoint: Any, args: Any, kwargs: Any, data: dict[str, Any] | None
    ) -> None:
        self.container, self.service, self.entrypoint = container, service, entrypoint
        self.service_name = container.service_name
        self.args, self.kwargs = args or (), kwargs or {}
        self.data = self.context_data = {} if data is None else data
        self.handle_result: Any = None
        """What is still to be called with the result; None once it was called."""

    @cached_property
    def call_id(self) -> str:
        """The id of this call, in Nameko's format."""
        return f"{self.service_name}.{self.entrypoint.method_name}.{new_call_id()}"

    @property
    def call_id_stack(self) -> list[str]:
        """Only this call: our calls carry a traceparent instead of the ids of their callers."""
        return [self.call_id]


class Container(ServiceContainer):
    """Runs a service. It calls the hooks of extensions in the same order as Nameko's container."""

    def __init__(self, service_cls: type) -> None:
        super().__init__(service_cls)
        self._watchdog: Watchdog | None = None

    def start(self) -> None:
        """Start the extensions, and with RESTART_STUCK_SECONDS the watchdog."""
        seconds = float(config.get("RESTART_STUCK_SECONDS", 0))
        if seconds:
            self._watchdog = Watchdog(loops_of(self), seconds)
            self._watchdog.start()
        super().start()

    def stop(self) -> None:
        """Stop the extensions, and at last the watchdog: a stop that hangs is ended too."""
        super().stop()
        self._end_watchdog()

    def kill(self, exc_info: Any = None) -> None:
        """End everything at once."""
        super().kill(exc_info)
        self._end_watchdog()

    def _end_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()

    def spawn_worker(
        self,
        entrypoint: Any,
        args: Any,
        kwargs: Any,
        context_data: dict[str, Any] | None = None,
        handle_result: Any = None,
    ) -> WorkerContext:
        """Run the entrypoint's method in a new greenlet.

        Raises ContainerBeingKilled, and ServiceUnavailable where all workers stay busy for WORKER_SECONDS.
        """
        if self._being_killed:
            raise ContainerBeingKilled
        worker = Worker(self, self.service_cls(), entrypoint, args, kwargs, context_data)
        worker.handle_result = handle_result
        greenlet = self._spawn(worker, handle_result)
        greenlet.link(self._handle_worker_thread_exited, worker)
        self._worker_threads[worker] = greenlet
        return worker

    def _spawn(self, worker: Worker, handle_result: Any) -> Any:
        if self._worker_pool.free() > 0:
            return self._worker_pool.spawn(self._run_worker, worker, handle_result)
        busy = ServiceUnavailable(f"All workers of {self.service_name} are busy.", retry_after=1)
        with eventlet.Timeout(WORKER_SECONDS, busy):
            return self._worker_pool.spawn(self._run_worker, worker, handle_result)

    def _run_worker(self, worker_ctx: WorkerContext, handle_result: Any) -> None:
        result = exc_info = None
        try:
            self._prepare(worker_ctx)
            result = getattr(worker_ctx.service, worker_ctx.entrypoint.method_name)(
                *worker_ctx.args, **worker_ctx.kwargs
            )
        except Exception:  # noqa: BLE001  (the entrypoint handles and logs it)
            exc_info = sys.exc_info()
        worker_ctx.handle_result = None
        if handle_result is not None:
            result, exc_info = handle_result(worker_ctx, result, exc_info)
        self._finish(worker_ctx, result, exc_info)
        del exc_info  # it is in a reference cycle with this frame

    def _prepare(self, worker_ctx: WorkerContext) -> None:
        """Run the hooks before the method. Their failure counts as one of the method, so its message is settled."""
        try:
            self._inject_dependencies(worker_ctx)
            self._worker_setup(worker_ctx)
        except Exception:
            log.exception("%s could not be prepared", worker_ctx.entrypoint.method_name)
            raise

    def _finish(self, worker_ctx: WorkerContext, result: Any, exc_info: Any) -> None:
        """Run the hooks after the method. Their failure must not end the service: other workers are under way."""
        try:
            self._worker_result(worker_ctx, result, exc_info)
            self._worker_teardown(worker_ctx)
        except Exception:
            log.exception("%s could not be finished", worker_ctx.entrypoint.method_name)

    def _handle_worker_thread_exited(self, gt: Any, worker_ctx: Any) -> None:
        super()._handle_worker_thread_exited(gt, worker_ctx)
        handle_result, worker_ctx.handle_result = worker_ctx.handle_result, None
        if handle_result is None:
            return
        error = ServiceUnavailable(f"{self.service_name} is stopping.", retry_after=1)
        try:
            handle_result(worker_ctx, None, (type(error), error, None))
        except Exception:
            log.exception("%s was killed before it began, and not settled", worker_ctx.entrypoint.method_name)
