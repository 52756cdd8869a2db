"""Our overrides of Nameko's container: they omit its debug logging and its call ids for each worker.

The setting SERVICE_CONTAINER_CLS chooses between Container and Nameko's own `nameko.containers.ServiceContainer`. All
extensions work with either.
"""

import logging
import sys
from functools import cached_property
from typing import Any

from nameko.containers import ServiceContainer, WorkerContext, new_call_id
from nameko.exceptions import ContainerBeingKilled

log = logging.getLogger(__name__)


class Worker(WorkerContext):
    """A worker's context whose call id is generated on first use, not for each worker."""

    def __init__(  # not super().__init__(), which generates a call id and a stack of call ids
        self, container: Any, service: Any, entrypoint: Any, args: Any, kwargs: Any, data: dict[str, Any] | None
    ) -> None:
        self.container, self.service, self.entrypoint = container, service, entrypoint
        self.service_name = container.service_name
        self.args, self.kwargs = args or (), kwargs or {}
        self.data = self.context_data = {} if data is None else data

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

    def spawn_worker(
        self,
        entrypoint: Any,
        args: Any,
        kwargs: Any,
        context_data: dict[str, Any] | None = None,
        handle_result: Any = None,
    ) -> WorkerContext:
        """Run the entrypoint's method in a new greenlet. Raises ContainerBeingKilled."""
        if self._being_killed:
            raise ContainerBeingKilled
        worker = Worker(self, self.service_cls(), entrypoint, args, kwargs, context_data)
        greenlet = self._worker_pool.spawn(self._run_worker, worker, handle_result)
        greenlet.link(self._handle_worker_thread_exited, worker)
        self._worker_threads[worker] = greenlet
        return worker

    def _run_worker(self, worker_ctx: WorkerContext, handle_result: Any) -> None:
        result = exc_info = None
        try:
            self._prepare(worker_ctx)
            result = getattr(worker_ctx.service, worker_ctx.entrypoint.method_name)(
                *worker_ctx.args, **worker_ctx.kwargs
            )
        except Exception:  # noqa: BLE001  (the entrypoint handles and logs it)
            exc_info = sys.exc_info()
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
