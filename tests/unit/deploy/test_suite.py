"""The supervisor, with processes that only sleep instead of the services."""

import http.server
import json
import signal
import sys
import threading

import pytest

from deploy.local import suite as module
from deploy.local.process import StartError, spawn, started_at, wait_until
from deploy.local.suite import Suite

SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
DIES = "print('a reason to die', flush=True)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPS


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A suite of two sleeping processes; `programs` has the program of each."""
    monkeypatch.setattr("deploy.local.suite.FIRST_RESTART_SECONDS", 0.05)
    monkeypatch.setattr("deploy.local.suite.LONGEST_RESTART_SECONDS", 0.1)
    made = Suite({"GATEWAY_ADDRESS": "127.0.0.1:1"}, log_dir=tmp_path / "log", services=["orders", "gateway"])
    made.programs = dict.fromkeys(("orders", "gateway"), SLEEPS)

    def sleep_instead(command, **more):
        service = command[-1].removesuffix(".service")
        return spawn([sys.executable, "-c", made.programs[service]], **more)

    monkeypatch.setattr(module, "spawn", sleep_instead)
    yield made
    made.stop(grace=0.5)


def up(suite, name):
    return wait_until(lambda: suite.pid(name) is not None and "up" in suite.log(name).read_text(), seconds=10)


def test_a_process_that_ends_is_restarted(suite):
    suite.start()
    assert up(suite, "orders")
    first = suite.pid("orders")
    suite.kill("orders", signal.SIGKILL)
    assert wait_until(lambda: suite.pid("orders") not in (None, first), seconds=10)
    assert suite.restart_count("orders") == 1
    assert suite.restart_count("gateway") == 0


def test_a_failed_start_is_retried(suite, monkeypatch):
    suite.start()
    assert up(suite, "orders")
    first, spawn_it, failures = suite.pid("orders"), module.spawn, [OSError(12, "no memory"), OSError(12, "no memory")]

    def fail_twice(command, **more):
        if failures:
            raise failures.pop()
        return spawn_it(command, **more)

    monkeypatch.setattr(module, "spawn", fail_twice)
    suite.kill("orders", signal.SIGKILL)
    assert wait_until(lambda: suite.pid("orders") not in (None, first), seconds=10)
    assert failures == []
    assert suite.restart_count("orders") == 1


def test_a_stopped_service_stays_stopped_until_it_is_started(suite):
    suite.start()
    assert up(suite, "orders")
    suite.stop_service("orders")
    assert suite.pid("orders") is None
    assert not wait_until(lambda: suite.pid("orders") is not None, seconds=0.6)
    suite.start_service("orders")
    assert wait_until(lambda: suite.pid("orders") is not None, seconds=5)


def test_stopping_ends_all_processes_even_those_that_ignore_sigterm(suite):
    suite.programs["orders"] = STUBBORN
    suite.start()
    assert up(suite, "orders")
    assert up(suite, "gateway")
    pids = suite.pid("orders"), suite.pid("gateway")
    suite.stop(grace=0.3)
    assert [started_at(pid) for pid in pids] == [None, None]
    assert not wait_until(lambda: suite.pid("orders") is not None, seconds=0.5)


def test_processes_of_an_earlier_launcher_are_ended_first(suite, tmp_path):
    suite.start()
    assert up(suite, "orders")
    left = suite.pid("orders")
    again = Suite(suite.env, log_dir=tmp_path / "log", services=["orders"])
    again._services["orders"].pid_file.end_leftover(signal.SIGTERM, grace=5)
    assert started_at(left) is None


def test_a_service_that_keeps_ending_is_reported_with_its_log(suite):
    suite.programs["orders"] = DIES
    suite.start()
    with pytest.raises(StartError, match=r"(?s)orders keeps ending.*a reason to die"):
        suite.wait_ready(timeout=30)


def test_a_suite_that_does_not_become_ready_is_reported_after_the_timeout(suite):
    suite.start()
    with pytest.raises(StartError, match=r"(?s)not ready after 0 s: the gateway on port 1 does not respond.*up"):
        suite.wait_ready(timeout=0.4)


def report(**orders):
    return 200, {"status": "ok", "services": {"users": {"database": "ok", "redis": "down"}, "orders": orders}}


def test_the_suite_is_ready_when_the_gateway_reports_that_every_service_is(suite):
    """The gateway is ready sooner, because it serves what does not need the service that is missing."""
    answers = iter([(503, {}), report(service="down"), report(database="down", redis="ok")])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/health/ready"
            status, body = next(answers, report(database="ok", redis="down"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    suite.env["GATEWAY_ADDRESS"] = f"127.0.0.1:{server.server_port}"
    suite.start()
    suite.wait_ready(timeout=10)
    assert next(answers, None) is None
    server.shutdown()
    server.server_close()
