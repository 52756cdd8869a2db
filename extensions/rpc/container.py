"""The container of a service: Nameko's, without what it writes down about every worker and nobody reads."""

import sys
from functools import cached_property
from typing import Any

from nameko.containers import ServiceContainer, WorkerContext, new_call_id
from nameko.exceptions import ContainerBeingKilled


class Worker(WorkerContext):
    """A worker's context. Its call id is made when somebody asks for it, which Nameko does for its debug log."""

    def __init__(  # not super().__init__(), which makes an id and a stack of ids
        self, container: Any, service: Any, entrypoint: Any, args: Any, kwargs: Any, data: dict[str, Any] | None
    ) -> None:
        self.container, self.service, self.entrypoint = container, service, entrypoint
        self.service_name = container.service_name
        self.args, self.kwargs = args or (), kwargs or {}
        self.data = self.context_data = {} if data is None else data

    @cached_property
    def call_id(self) -> str:
        """Which call this is."""
        return f"{self.service_name}.{self.entrypoint.method_name}.{new_call_id()}"

    @property
    def call_id_stack(self) -> list[str]:
        """Our calls carry a traceparent instead of the ids of those that led to them."""
        return [self.call_id]


class Container(ServiceContainer):
    """Runs a service. What extensions can rely on is the same as ever, and so is the order of it."""

    def spawn_worker(
        self,
        entrypoint: Any,
        args: Any,
        kwargs: Any,
        context_data: dict[str, Any] | None = None,
        handle_result: Any = None,
    ) -> WorkerContext:
        """Run the entrypoint's method in a greenlet of its own. Raises ContainerBeingKilled."""
        if self._being_killed:
            raise ContainerBeingKilled
        worker = Worker(self, self.service_cls(), entrypoint, args, kwargs, context_data)
        greenlet = self._worker_pool.spawn(self._run_worker, worker, handle_result)
        greenlet.link(self._handle_worker_thread_exited, worker)
        self._worker_threads[worker] = greenlet
        return worker

    def _run_worker(self, worker_ctx: WorkerContext, handle_result: Any) -> None:
        self._inject_dependencies(worker_ctx)
        self._worker_setup(worker_ctx)
        result = exc_info = None
        try:
            result = getattr(worker_ctx.service, worker_ctx.entrypoint.method_name)(
                *worker_ctx.args, **worker_ctx.kwargs
            )
        except Exception:  # noqa: BLE001  (the entrypoint decides what becomes of it, and logs it)
            exc_info = sys.exc_info()
        if handle_result is not None:
            result, exc_info = handle_result(worker_ctx, result, exc_info)
        self._worker_result(worker_ctx, result, exc_info)
        del exc_info  # it holds the frame that holds it
        self._worker_teardown(worker_ctx)
