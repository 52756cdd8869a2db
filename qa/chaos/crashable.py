"""`nameko`, but the service kills itself at an armed point:
`python -m qa.chaos.crashable run --config config.yml orders.service`.

The services have no hooks for tests. This module wraps functions of the real extensions before Nameko loads the
service, and lets the simulated payment provider remember its payments.
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
from qa.chaos import crash_points  # noqa: E402
from qa.chaos.crash_points import FOLDER, ArmedPoint, Point  # noqa: E402
from qa.chaos.provider_records import Memory  # noqa: E402

WRITING_METHODS = {"create_order", "cancel_order", "ship_order", "deliver_order", "adjust_stock"}


class Crashes:
    """The crash points of one service."""

    def __init__(self, folder, service):
        self.service = service
        self._armed_points = {point: ArmedPoint(folder, service, point) for point in crash_points.POINTS}

    def reach(self, point: Point):
        """Kill this process if the point is armed."""
        if self._armed_points[point].trigger():
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap_all(self):
        self._wrap_units_of_work()
        self._wrap_acks()
        self._wrap_replies()
        self._wrap_relay()
        self._wrap_http()

    def _wrap_units_of_work(self):
        """Record the entrypoint of each unit of work, and reach its point between the last write and the commit."""

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
            self.reach(crash_points.HANDLER_BEFORE_ACK)
            original(*args, **kwargs)
            self.reach(crash_points.HANDLER_AFTER_ACK)

    def _wrap_replies(self):
        @around(rpc.RpcServer, "_reply")
        def reply(original, server, channel, message, result, error, **kwargs):
            if error is None and message.delivery_info["routing_key"].rpartition(".")[2] in WRITING_METHODS:
                self.reach(crash_points.RPC_BEFORE_REPLY)
            return original(server, channel, message, result, error, **kwargs)

    def _wrap_relay(self):
        """The publisher sends retries too. `_publish` holds its lock, so an attribute can tell who uses it."""

        @around(publisher.ConfirmedPublisher, "_publish")
        def publish(original, sender, messages, *args, **kwargs):
            sender.relays = messages[0].exchange == EXCHANGE
            refused = original(sender, messages, *args, **kwargs)
            if sender.relays:
                self.reach(crash_points.RELAY_BEFORE_DELETION)
            return refused

        @around(publisher.ConfirmedPublisher, "_await_confirms")
        def await_confirms(original, sender, *args, **kwargs):
            if sender.relays:
                self.reach(crash_points.RELAY_BEFORE_CONFIRM)
            return original(sender, *args, **kwargs)

        @around(outbox.OutboxRelay, "_relay_batch")
        def relay_batch(original, relay, *args, **kwargs):
            count = original(relay, *args, **kwargs)
            if count:
                self.reach(crash_points.RELAY_AFTER_DELETION)
            return count

    def _wrap_http(self):
        @around(dispatch.HttpServer, "_run")
        def run(original, server, endpoint, *args, **kwargs):
            response = original(server, endpoint, *args, **kwargs)
            if (endpoint.declaration.method, endpoint.declaration.path) == ("POST", "/orders"):
                self.reach(crash_points.GATEWAY_BEFORE_RESPONSE)
            return response

    def wrap_payments(self, memory: Memory):
        """Wrap the provider, in payments only: the imports are here, so that no other service loads it."""
        from payments import use_cases
        from payments.provider import SimulatedProvider

        @around(use_cases.ProviderCalls, "execute")
        def execute(original, calls, request):
            outcomes = original(calls, request)
            self.reach(crash_points.PROVIDER_ANSWERED)
            return outcomes

        @around(SimulatedProvider, "__init__")
        def init(original, provider, limit):
            original(provider, limit, memory)


def shorten_pauses():
    """Repeat webhooks and mails soon, and give up one that gets no reply soon: a round ends within seconds."""
    from extensions.outbound import client, smtp
    from notifications import deliveries, mails, rules

    rules.RETRY_SECONDS = (0.3, 0.5, 1.0, 1.0, 2.0, 2.0, 4.0)
    rules.FIRST_PAUSE_SECONDS, rules.LONGEST_PAUSE_SECONDS = 0.2, 2.0
    deliveries.LONGEST_WAIT_SECONDS = 5.0
    deliveries.REQUEST_SECONDS = client.TOTAL_SECONDS = 6.0
    mails.RETRY_SECONDS = (0.3, 0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0)
    smtp.TOTAL_SECONDS = 8.0


def _point_of(unit):
    """The point before the commit of this unit of work, or None."""
    entrypoint = getattr(unit, "entrypoint", None)  # a detached transaction has none
    if isinstance(entrypoint, events.EventHandler):
        return crash_points.HANDLER_BEFORE_COMMIT
    if isinstance(entrypoint, rpc.Rpc) and entrypoint.method_name in WRITING_METHODS:
        return crash_points.RPC_BEFORE_COMMIT
    if isinstance(entrypoint, periodic.Periodic) and entrypoint.method_name == "expire_orders" and unit._outbox:
        return crash_points.TIMER_BEFORE_COMMIT
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
    """Wrap the extensions, and run `nameko`."""
    service = sys.argv[-1].partition(".")[0]
    folder = Path(os.environ[FOLDER])
    crashes = Crashes(folder, service)
    crashes.wrap_all()
    if service == "payments":
        crashes.wrap_payments(Memory(folder))
    if service == "notifications":
        shorten_pauses()
    from nameko.cli import cli

    cli()


if __name__ == "__main__":
    main()
