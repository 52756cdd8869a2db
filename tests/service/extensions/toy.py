"""A service whose methods fail on demand, for `nameko run --config config.yml tests.service.extensions.toy`."""

import gc

import eventlet
from nameko.extensions import DependencyProvider

from extensions.rpc.client import PendingCalls
from extensions.rpc.server import rpc


class Bomb(DependencyProvider):
    """Raises an error in a managed thread of the container, as a defect in an extension would."""

    def get_dependency(self, worker_ctx):
        return lambda: self.container.spawn_managed_thread(lambda: 1 / 0)


class Calls(DependencyProvider):
    """Calls any method of any service: `self.call("orders", "health", (), {}, 2.0)`."""

    pending = PendingCalls()

    def get_dependency(self, worker_ctx):
        return self.pending.call


class Toy:
    name = "toy"
    call = Calls()
    bomb = Bomb()

    @rpc(transaction=False)
    def explode(self):
        self.bomb()

    @rpc(transaction=False)
    def sleep(self, seconds):
        eventlet.sleep(seconds)
        return "rested"

    @rpc(transaction=False)
    def count_objects_that_no_garbage_collection_visits(self):
        return gc.get_freeze_count()

    @rpc(transaction=False)
    def run_into_a_timeout(self):
        with eventlet.Timeout(0.05):
            eventlet.sleep(5)

    @rpc(transaction=False)
    def exit(self):
        raise SystemExit

    @rpc(transaction=False)
    def ask(self, service, method, timeout):
        return self.call(service, method, (), {}, timeout)
