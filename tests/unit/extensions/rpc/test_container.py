"""Our container runs the same steps in the same order as Nameko's, also if the method fails."""

import eventlet
import pytest
from nameko import config
from nameko.containers import ServiceContainer
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import DependencyProvider, Entrypoint

from contracts.errors import ServiceUnavailable
from extensions.rpc import container as containers
from extensions.rpc.container import Container
from extensions.runtime.progress import loops_of
from extensions.storage.periodic import periodic


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


def test_a_worker_that_is_killed_before_it_begins_is_settled():
    container, results = Container(Halving), []
    (entrypoint,) = container.entrypoints
    settle = lambda _ctx, result, exc_info: results.append((result, exc_info[0])) or (result, exc_info)  # noqa: E731
    worker = container.spawn_worker(entrypoint, (1,), {}, handle_result=settle)
    container._worker_threads[worker].kill()
    assert results == [(None, ServiceUnavailable)]
    assert not container._worker_threads
    container._worker_pool.waitall()


def test_a_busy_pool_is_waited_for_only_for_a_time(monkeypatch):
    monkeypatch.setattr(containers, "WORKER_SECONDS", 0.05)
    container, door = Container(Halving), eventlet.Event()
    (entrypoint,) = container.entrypoints
    container._worker_pool.resize(1)
    occupied = container._worker_pool.spawn(door.wait)
    with eventlet.Timeout(10), pytest.raises(ServiceUnavailable, match="busy"):
        container.spawn_worker(entrypoint, (1,), {})
    door.send()
    occupied.wait()
    container.spawn_worker(entrypoint, (1,), {})
    container._worker_pool.waitall()


class Ticking:
    name = "ticking"

    @periodic(seconds=60, transaction=False, every_process=True)
    def tick(self):
        pass


class Deadly(Container):
    """Kills each worker before it begins."""

    def spawn_worker(self, *arguments, **options):
        worker = super().spawn_worker(*arguments, **options)
        self._worker_threads[worker].kill()
        return worker


def test_a_stop_does_not_wait_for_a_worker_that_was_killed_before_it_began():
    container = Deadly(Ticking)
    container.start()
    eventlet.sleep(0.01)
    with eventlet.Timeout(10):
        container.stop()


@pytest.mark.parametrize(("seconds", "loops"), [("60", {"hub"}), ("0", set())], ids=["on", "off"])
def test_the_watchdog_runs_from_the_start_to_the_stop(seconds, loops):
    container = Container(Halving)
    with config.patch({"RESTART_STUCK_SECONDS": seconds}):
        container.start()
    eventlet.sleep(0.01)
    assert loops_of(container).names() == loops
    container.stop()
    assert loops_of(container).names() == set()
