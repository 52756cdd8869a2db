"""A service as a process: its start, its stop and its failures."""

import os
import subprocess
import sys
from pathlib import Path

import amqp
import eventlet
import pytest

from contracts.errors import InternalError, ServiceError, ServiceUnavailable, UpstreamTimeout
from tests.support import TEST_TIMEOUT_SECONDS, Caller, eventually

ROOT = Path(__file__).parent.parent.parent.parent
CALLER = Caller(timeout=5.0)


@pytest.fixture
def start(servers, tmp_path):
    """Start the toy service in its own process, which is ended after the test."""
    processes = []

    def run():
        command = [sys.executable, "-m", "nameko", "run", "--config", "config.yml", "tests.service.extensions.toy"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with (tmp_path / "log").open("a") as log:
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT))
        processes[-1].log = tmp_path / "log"
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()


def is_up():
    try:
        return CALLER.toy.sleep(0) == "rested"
    except (AssertionError, OSError, amqp.NotFound):  # NotFound: a new broker does not even have the exchange
        return False


def waits(process):
    """The number of log lines that report waiting for the broker."""
    return process.log.read_text().count("next try")


def says(process, words):
    return lambda: words in process.log.read_text()


def test_a_running_call_returns_before_the_process_ends(start):
    process = start()
    eventually(is_up)
    call = eventlet.spawn(CALLER.toy.sleep, 1.0)
    eventlet.sleep(0.3)  # the call is running, which is not observable from here
    process.terminate()
    assert call.wait() == "rested"
    assert process.wait(TEST_TIMEOUT_SECONDS) == 0


def test_garbage_collection_does_not_visit_imported_objects(start):
    """There are hundreds of thousands of such objects. Visiting them would block all calls for a tenth of a second."""
    start()
    eventually(is_up)
    assert CALLER.toy.count_objects_that_no_garbage_collection_visits() > 50_000


def test_a_defect_in_an_extension_ends_the_process_for_the_supervisor(start):
    process = start()
    eventually(is_up)
    CALLER.toy.explode()
    assert process.wait(TEST_TIMEOUT_SECONDS) != 0


def test_the_process_waits_for_an_unavailable_broker_and_can_be_stopped(broker_outage, start):
    with broker_outage():
        process = start()
        eventually(says(process, "next try"))
        process.terminate()
        assert process.wait(TEST_TIMEOUT_SECONDS) == 0
        tries = waits(process)
        waiting = start()
        eventually(lambda: waits(waiting) > tries)
    eventually(is_up)
    assert waiting.poll() is None


def test_an_uncaught_timeout_becomes_an_error_and_leaks_no_worker(start):
    start()
    eventually(is_up)
    for _ in range(50):  # more than there are workers
        with pytest.raises(InternalError):
            CALLER.toy.run_into_a_timeout()
    assert is_up()


def test_pitfall_04_no_method_can_exit_the_process(start):
    process = start()
    eventually(is_up)
    with pytest.raises(InternalError):
        CALLER.toy.exit()
    assert is_up()
    assert process.poll() is None


def test_a_call_has_a_deadline_and_a_call_to_no_service_fails_immediately(start):
    start()
    eventually(is_up)
    with pytest.raises(UpstreamTimeout):
        CALLER.toy.ask("toy", "ask_nobody_knows_how_long", 0.0)
    with pytest.raises(ServiceUnavailable):
        CALLER.toy.ask("nobody", "listens", 3.0)
    with pytest.raises(ServiceError, match="has no method"):
        CALLER.toy.ask("toy", "fly", 3.0)
