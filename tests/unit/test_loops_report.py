"""Every long-running loop reports its progress (extensions/runtime/progress.py), so that /health can name a stuck one.

A loop is a function with a `while`, or one that runs in a greenlet of its own. It reports, or it is in ENDS or in
REPORTED with the reason. Timers are methods that the loop Periodic._fire_all calls.
"""

import ast

import pytest

from tests.unit.docs.known_names import python_files, tree
from tests.unit.docs.test_bounds import COMPUTE, PRODUCT, START, Finder, dotted

REPORTS = {"report_progress", "report_idle", "running", "report_current_progress"}
# They end by themselves, and nothing waits longer: the reasons are the bounds in docs/reliability/bounds.md.
ENDS = {
    "extensions/cache/connection.py: RedisConnection.attempt",
    "extensions/cache/single_flight.py: SingleFlight.get",
    "extensions/cache/pending_invalidations.py: PendingInvalidations.send",
    "extensions/http/routing/dispatcher.py: HttpServer._await_readiness",
    "extensions/http/server/body_stream.py: Body.pieces",
    "extensions/http/server/body_stream.py: _chunk_lengths",
    "extensions/http/server/listener.py: HttpListener._accept_backlog",
    "extensions/http/server/listener.py: HttpListener._serve",
    "extensions/http/server/listener.py: HttpListener.stop",
    "extensions/http/server/parser.py: _read_headers",
    "extensions/http/server/parser.py: read_chunked",
    "extensions/http/server/timed_socket.py: TimedReader.readinto",
    "extensions/http/server/timed_socket.py: discard",
    "extensions/http/server/timed_socket.py: write",
    "extensions/http/streams/stream.py: Stream._write_waiting",
    "extensions/idempotency/batcher.py: Batcher._run_all",
    "extensions/messaging/event_handler.py: EventHandler.stop",
    "extensions/messaging/event_log_reader.py: EventLogReader._close",
    "extensions/messaging/event_log_reader.py: EventLogReader._read_after",
    "extensions/messaging/event_log_reader.py: EventLogReader._take",
    "extensions/messaging/listener.py: Listener.unsubscribe",
    "extensions/messaging/publisher.py: ConfirmedPublisher._publish",
    "extensions/messaging/sender.py: _result_of",
    "extensions/outbound/client.py: _beginning",
    "extensions/outbound/client.py: _read",
    "extensions/outbound/parallel.py: call_each",
    "extensions/rpc/call_slots.py: CallSlots._ended",
    "extensions/rpc/call_slots.py: CallSlots._give_up",
    "extensions/rpc/client.py: PendingCalls._fail_blocked",
    "extensions/rpc/server.py: RpcServer._end_workers",
    "extensions/rpc/server.py: RpcServer._store_dead_letter",
    "extensions/rpc/server.py: RpcServer.finish",
    "extensions/storage/engine.py: _wait",
    "extensions/storage/import_stage.py: Stage._chunks",
    "extensions/storage/work_items_recorder.py: Recorder.fail",
    "extensions/storage/work_items_runner.py: Lane._execute",
    "extensions/storage/work_items_runner.py: WorkItems.stop",
    "gateway/account_export.py: gather",
    "gateway/live/events.py: EventFeed._catch_up",
    "gateway/live/events.py: EventFeed._join_all",
    "gateway/live/events.py: _await_room",
    "gateway/product_export.py: ProductExport.__iter__",
    "gateway/uploads.py: _result",
    "orders/providers.py: AdmissionQueue._open",
    "orders/providers.py: AdmissionQueue._wait",
    "orders/reconciliation.py: Reconciliation._compare",
    "users/service.py: UsersService.change_password",
    "users/service.py: UsersService.delete_account",
    "users/service.py: UsersService.login",
}
# Another loop reports for them, or they only start one.
REPORTED = {
    "extensions/storage/imports.py: Imports._merge_all": "each of its transactions is progress of its timer",
    "extensions/storage/imports.py: Imports._stage": "each of its transactions is progress of its timer",
    "extensions/storage/imports.py: Imports.work_on": "each of its transactions is progress of its timer",
    "extensions/messaging/broadcast.py: Broadcast.on_message": "starts Broadcast._run",
    "extensions/messaging/event_handler.py: EventHandler._handle_each": "each of its events is progress of _run",
    "extensions/messaging/reconnecting_connection.py: ReconnectingConnection._read": "its heartbeats, _send_heartbeats",
    "extensions/messaging/event_log_reader.py: EventLogReader._open": "starts ReconnectingConnection.run",
    "extensions/messaging/listener.py: Listener.start": "starts ReconnectingConnection.run",
    "extensions/messaging/publisher.py: ConfirmedPublisher._open_channel": "starts ReconnectingConnection.run",
    "extensions/messaging/sender.py: Sender.start": "starts ReconnectingConnection.run",
    "extensions/messaging/wire/transport.py: BufferedTransport.read_frame": "the heartbeats of its connection",
    "extensions/observability/metrics.py: Metrics._serve": "no scrape is answered, and no /health/live",
    "extensions/rpc/container.py: Container._run_worker": "whoever waits for it: a handler, a timer, rpc.calls",
    "extensions/runtime/watchdog.py: Watchdog._check_all": "a native thread that watches the loops",
    "extensions/storage/work_items_runner.py: WorkItems.start": "starts Lane.run and Recorder.run",
}


class LoopFinder(Finder):
    """Collects the names of the loops of one file, and of those that report."""

    timers = frozenset()

    def __init__(self, root):
        self.reporting = set()
        super().__init__(root)

    def visit_Call(self, node):  # noqa: N802  (ast's name)
        name, arguments = dotted(node.func), [*node.args, *node.keywords]
        if START.search(name) and arguments:
            super().visit_Call(node)
            return
        if name.rpartition(".")[2] in REPORTS:
            self.reporting.add(".".join(self._scope))
        self.generic_visit(node)


def silent_loops(name, root):
    """Return the loops of a file that do not report: {"path: Class.name"}."""
    finder = LoopFinder(root)
    return {f"{name}: {found}" for found in finder.found - finder.reporting}


def test_every_long_running_loop_reports_its_progress():
    silent = set().union(*(silent_loops(name, tree(name)) for name in python_files() if PRODUCT.match(name)))
    known = COMPUTE | ENDS | set(REPORTED)
    assert silent - known == set(), "let them report, or add them to ENDS if they end by themselves"
    assert (ENDS | set(REPORTED)) - silent == set(), "these report now, or are no loops: remove them"


LOOPS = {
    "while True: eventlet.sleep(1)": "orders/fake.py: Fake.method",
    "eventlet.spawn(self.run)": "orders/fake.py: Fake.run",
    "self.container.spawn_managed_thread(self.connection.run, identifier='x')": "orders/fake.py: Fake.method",
}


@pytest.mark.parametrize(("code", "name"), LOOPS.items(), ids=LOOPS)
def test_a_new_loop_has_to_report(code, name):
    root = ast.parse(f"class Fake:\n def run(self): return 1\n def method(self):\n  {code}")
    assert silent_loops("orders/fake.py", root) == {name}


def test_a_loop_that_reports_is_not_silent():
    root = ast.parse("class Fake:\n def run(self, loop):\n  while True:\n   loop.report_progress()")
    assert silent_loops("orders/fake.py", root) == set()
