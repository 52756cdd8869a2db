"""Our container runs the same steps in the same order as Nameko's, also if the method fails."""

import pytest
from nameko.containers import ServiceContainer
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import DependencyProvider, Entrypoint

from extensions.rpc.container import Container


class Recorder(DependencyProvider):
    """Records the calls of its hooks."""

    def __init__(self):
        self.seen = []

    def get_dependency(self, worker_ctx):
        self.seen.append("dependency")
        return self

    def worker_setup(self, worker_ctx):
        self.seen.append(("setup", dict(worker_ctx.data)))

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        self.seen.append(("result", result, exc_info and exc_info[0]))

    def worker_teardown(self, worker_ctx):
        self.seen.append("teardown")


class Halving:
    name = "halving"
    recorder = Recorder()

    @Entrypoint.decorator
    def half(self, number, *, of=10):
        self.recorder.seen.append("method")
        return of // number


def steps(kind, arguments):
    """Run a worker in a container of this class; returns the recorded steps."""
    container = kind(Halving)
    (recorder,), (entrypoint,) = container.dependencies, container.entrypoints

    def handle_result(worker_ctx, result, exc_info):
        recorder.seen.append(("handle", worker_ctx.service_name, result, exc_info and exc_info[0]))
        return "handled", exc_info

    container.spawn_worker(entrypoint, arguments, {"of": 20}, {"told": 1}, handle_result)
    container._worker_pool.waitall()
    assert not container._worker_threads
    for step in recorder.seen:
        if step[0] == "setup":
            step[1].pop("call_id_stack", None)
    return recorder.seen


@pytest.mark.parametrize("arguments", [(4,), (0,), ()], ids=["result", "exception", "wrong arguments"])
def test_workers_run_the_same_steps_as_in_nameko(arguments):
    ours = steps(Container, arguments)
    assert ours == steps(ServiceContainer, arguments)
    assert ours[0] == "dependency"
    assert ours[-1] == "teardown"


def test_a_container_that_is_being_killed_starts_no_worker():
    container = Container(Halving)
    container.kill()
    with pytest.raises(ContainerBeingKilled):
        container.spawn_worker(next(iter(container.entrypoints)), (1,), {})


def test_a_worker_has_a_call_id_on_demand():
    container = Container(Halving)
    worker = container.spawn_worker(next(iter(container.entrypoints)), (1,), {})
    assert worker.call_id.startswith("halving.half.")
    assert worker.call_id_stack == [worker.call_id]
    container._worker_pool.waitall()
