"""The exit code for Docker and Kubernetes: 1 only if a restart helps. It depends on the health that is reported."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from deploy import healthcheck

WELL = {"status": "ok", "parts": {"database": "ok", "redis": "down: reads are slower"}}
DEGRADED = {"status": "degraded", "parts": {"database": "does not respond", "redis": "ok"}}
FAILING = {"status": "failing", "parts": {"database": "ok", "loops": "stuck: outbox.relay (130 s)"}}


@pytest.mark.parametrize(
    ("report", "code", "error"),
    [
        (WELL, 0, ""),
        (DEGRADED, 0, ""),
        (FAILING, 1, "orders: loops: stuck: outbox.relay (130 s)\n"),
        (TimeoutError(), 1, "orders did not respond within 3 s\n"),
        (ConnectionRefusedError("no broker"), 1, "orders: no broker\n"),
    ],
    ids=["well", "degraded", "failing", "silent", "no broker"],
)
def test_a_service_without_metrics_is_asked_by_rpc(monkeypatch, capsys, report, code, error):
    def ask(_amqp_uri, _service, *, timeout):
        if isinstance(report, Exception):
            raise report
        return report

    monkeypatch.setattr(healthcheck, "ask", ask)
    assert healthcheck.main(["orders"]) == code
    assert capsys.readouterr().err == error
    assert healthcheck.is_healthy("amqp://", "orders") == (report is WELL)


def test_a_degraded_gateway_is_healthy_and_its_report_tells_what_is_down():
    parts = {
        "users": {"service": "down"},
        "orders": {"database": "down", "redis": "down"},
        "catalog": {"redis": "down"},
    }
    assert healthcheck.parts_down({"status": "degraded", "services": parts}) == ["users", "orders.database"]


@pytest.fixture
def process():
    """A function that serves a report, as the metrics port of a process does, and returns the address."""
    servers = []

    def serve(status, report):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status if self.path == "/health/live" else 404)
                self.end_headers()
                self.wfile.write(json.dumps(report).encode())

            def log_message(self, *_args):
                """Write nothing."""

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "report", "code", "error"),
    [
        (200, {"service": "orders", "status": "ok", "stuck": {}}, 0, ""),
        (
            503,
            {"service": "orders", "status": "starting", "stuck": {}},
            1,
            "orders: orders is starting; stuck: nothing\n",
        ),
        (
            503,
            {"service": "orders", "status": "failing", "stuck": {"outbox.relay": 130.2}},
            1,
            "orders: orders is failing; stuck: outbox.relay\n",
        ),
        (503, {"service": "users", "status": "failing", "stuck": {"outbox.relay": 130.2}}, 0, ""),
    ],
    ids=["lives", "starting", "stuck", "another service"],
)
def test_the_process_on_this_machine_is_asked_first(process, monkeypatch, capsys, status, report, code, error):
    monkeypatch.setenv("ORDERS_METRICS_ADDRESS", process(status, report))
    monkeypatch.setattr(healthcheck, "ask", lambda *_args, **_options: WELL)
    assert healthcheck.main(["orders"]) == code
    assert capsys.readouterr().err == error


def test_a_process_that_lives_needs_no_broker(process, monkeypatch):
    monkeypatch.setenv("ORDERS_METRICS_ADDRESS", process(200, {"service": "orders", "status": "ok", "stuck": {}}))
    monkeypatch.setenv("AMQP_URI", "pyamqp://guest:guest@127.0.0.1:1//")
    assert healthcheck.main(["orders"]) == 0


@pytest.mark.parametrize("address", ["", "127.0.0.1:9100-9109", "127.0.0.1:1"], ids=["none", "a range", "closed"])
def test_where_no_process_can_be_asked_the_service_is(address):
    assert not healthcheck.lives(address, "orders")


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)], ids=["lives", "stuck"])
def test_the_gateway_is_asked_whether_it_lives(process, monkeypatch, capsys, status, code):
    monkeypatch.setenv("GATEWAY_ADDRESS", process(status, {"detail": "Not alive: http.accept"}))
    assert healthcheck.main(["gateway"]) == code
    assert ("http.accept" in capsys.readouterr().err) == (code == 1)
