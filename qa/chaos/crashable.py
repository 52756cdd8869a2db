"""`nameko`, but the service kills itself where a fault wants it:
`python -m qa.chaos.crashable run --config config.yml orders.service`.

The product has no hooks for tests. This wraps the functions of the real extensions from outside, before Nameko loads
the service, and gives the simulated payment provider the memory of a real one.
"""

import os
import signal
import sys
from functools import wraps
from pathlib import Path

import eventlet

eventlet.monkey_patch()  # as `nameko` does, before anything else is imported

from contracts.events import EXCHANGE  # noqa: E402
from extensions.http.routing import dispatcher as dispatch  # noqa: E402
from extensions.messaging import event_handler as events  # noqa: E402
from extensions.messaging import outbox_relay as outbox  # noqa: E402
from extensions.messaging import publisher  # noqa: E402
from extensions.rpc import server as rpc  # noqa: E402
from extensions.storage import periodic  # noqa: E402
from extensions.storage import unit_of_work as work  # noqa: E402
from qa.chaos import points  # noqa: E402
from qa.chaos.points import FOLDER, Point, Trap  # noqa: E402
from qa.chaos.provider import Memory  # noqa: E402

WRITING_METHODS = {"create_order", "cancel_order", "ship_order", "deliver_order", "adjust_stock"}


class Crashes:
    """The points of one service."""

    def __init__(self, folder, service):
        self.service = service
        self._traps = {point: Trap(folder, service, point) for point in points.POINTS}

    def reach(self, point: Point):
        """Die here if a fault asks for it."""
        if self._traps[point].spring():
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap_all(self):
        self._wrap_units_of_work()
        self._wrap_acks()
        self._wrap_replies()
        self._wrap_relay()
        self._wrap_http()

    def _wrap_units_of_work(self):
        """A unit of work knows whose it is, and comes by the point between its last write and its commit."""

        @around(work.Work, "get_dependency")
        def get_dependency(original, provider, worker_ctx):
            unit = original(provider, worker_ctx)
            unit.entrypoint = worker_ctx.entrypoint
            return unit

        @around(work.UnitOfWork, "_commit")
        def commit(original, unit, *args, **kwargs):
            if point := _point_of(unit):
                unit._before_commit.append((self.reach, (point,)))
            return original(unit, *args, **kwargs)

    def _wrap_acks(self):
        @around(events, "ack")
        def ack(original, *args, **kwargs):
            self.reach(points.HANDLER_BEFORE_ACK)
            original(*args, **kwargs)
            self.reach(points.HANDLER_AFTER_ACK)

    def _wrap_replies(self):
        @around(rpc.RpcServer, "_reply")
        def reply(original, server, channel, message, result, error, **kwargs):
            if error is None and message.delivery_info["routing_key"].rpartition(".")[2] in WRITING_METHODS:
                self.reach(points.RPC_BEFORE_REPLY)
            return original(server, channel, message, result, error, **kwargs)

    def _wrap_relay(self):
        """The publisher serves retries too; `_publish` runs under its lock, so one attribute tells whose turn it is."""

        @around(publisher.ConfirmedPublisher, "_publish")
        def publish(original, sender, messages, *args, **kwargs):
            sender.relays = messages[0].exchange == EXCHANGE
            refused = original(sender, messages, *args, **kwargs)
            if sender.relays:
                self.reach(points.RELAY_BEFORE_DELETION)
            return refused

        @around(publisher.ConfirmedPublisher, "_await_confirms")
        def await_confirms(original, sender, *args, **kwargs):
            if sender.relays:
                self.reach(points.RELAY_BEFORE_CONFIRM)
            return original(sender, *args, **kwargs)

        @around(outbox.OutboxRelay, "_relay_batch")
        def relay_batch(original, relay, *args, **kwargs):
            count = original(relay, *args, **kwargs)
            if count:
                self.reach(points.RELAY_AFTER_DELETION)
            return count

    def _wrap_http(self):
        @around(dispatch.HttpServer, "_run")
        def run(original, server, route, request, *args, **kwargs):
            answer = original(server, route, request, *args, **kwargs)
            if (route.method, route.path) == ("POST", "/orders"):
                self.reach(points.GATEWAY_BEFORE_ANSWER)
            return answer

    def wrap_payments(self, memory: Memory):
        """Only in payments, and imported here, so that no other service loads it. Its provider gets a memory."""
        from payments import use_cases
        from payments.provider import PaymentProvider

        @around(use_cases, "ask_provider")
        def ask_provider(original, pending, provider):
            answers = original(pending, provider)
            if answers:
                self.reach(points.PROVIDER_ANSWERED)
            return answers

        @around(PaymentProvider, "authorise")
        def authorise(original, provider, key, amount, currency):
            answer = original(provider, key, amount, currency)
            if reference := getattr(answer, "reference", None):
                memory.authorised(key, amount, reference)
            return answer

        @around(PaymentProvider, "_move")
        def move(original, provider, kind, reference, key):
            memory.move(kind, reference)
            return original(provider, kind, reference, key)


def _point_of(unit):
    """The point before the commit of this unit of work; None where there is none."""
    whose = unit.entrypoint
    if isinstance(whose, events.EventHandler):
        return points.HANDLER_BEFORE_COMMIT
    if isinstance(whose, rpc.Rpc) and whose.method_name in WRITING_METHODS:
        return points.RPC_BEFORE_COMMIT
    if isinstance(whose, periodic.Periodic) and whose.method_name == "expire_orders" and unit._outbox:
        return points.TIMER_BEFORE_COMMIT
    return None


def around(owner, name):
    """Replace `owner.name` by the decorated function, which gets the original as its first argument."""
    original = getattr(owner, name)

    def decorate(wrapper):
        @wraps(original)
        def call(*args, **kwargs):
            return wrapper(original, *args, **kwargs)

        setattr(owner, name, call)
        return call

    return decorate


def main():
    """Wrap what there is to wrap, and be `nameko`."""
    service = sys.argv[-1].partition(".")[0]
    folder = Path(os.environ[FOLDER])
    crashes = Crashes(folder, service)
    crashes.wrap_all()
    if service == "payments":
        crashes.wrap_payments(Memory(folder))
    from nameko.cli import cli

    cli()


if __name__ == "__main__":
    main()
