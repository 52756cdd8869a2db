"""A service as a process: how it starts, stops and dies."""

import os
import subprocess
import sys
from pathlib import Path

import amqp
import eventlet
import pytest

from contracts.errors import InternalError, ServiceError, ServiceUnavailable, UpstreamTimeout
from tests.support import PATIENCE, Caller, eventually

ROOT = Path(__file__).parent.parent.parent.parent
CALLER = Caller(timeout=5.0)


@pytest.fixture
def start(servers, tmp_path):
    """Start the toy service in a process of its own; it is ended after the test."""
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
    except (AssertionError, OSError, amqp.NotFound):  # NotFound: on a new broker, not even the exchange is there
        return False


def waits(process):
    """How often the log says that the service waits for the broker."""
    return process.log.read_text().count("next try")


def says(process, words):
    return lambda: words in process.log.read_text()


def test_a_call_that_is_being_answered_is_answered_before_the_process_ends(start):
    process = start()
    eventually(is_up)
    call = eventlet.spawn(CALLER.toy.sleep, 1.0)
    eventlet.sleep(0.3)  # the call is under way; nothing outside shows it
    process.terminate()
    assert call.wait() == "rested"
    assert process.wait(PATIENCE) == 0


def test_no_garbage_collection_visits_what_was_imported(start):
    """There are hundreds of thousands of such objects; a visit takes a tenth of a second, and nobody is answered."""
    start()
    eventually(is_up)
    assert CALLER.toy.count_objects_that_no_garbage_collection_visits() > 50_000


def test_a_defect_in_an_extension_ends_the_process_so_that_a_supervisor_sees_it(start):
    process = start()
    eventually(is_up)
    CALLER.toy.explode()
    assert process.wait(PATIENCE) != 0


def test_it_waits_for_a_broker_that_is_not_there_and_stops_when_told(broker_outage, start):
    with broker_outage():
        process = start()
        eventually(says(process, "next try"))
        process.terminate()
        assert process.wait(PATIENCE) == 0
        tries = waits(process)
        waiting = start()
        eventually(lambda: waits(waiting) > tries)
    eventually(is_up)
    assert waiting.poll() is None


def test_a_timeout_that_escapes_becomes_an_error_and_leaks_no_worker(start):
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


def test_a_call_has_a_deadline_and_one_to_nobody_fails_at_once(start):
    start()
    eventually(is_up)
    with pytest.raises(UpstreamTimeout):
        CALLER.toy.ask("toy", "ask_nobody_knows_how_long", 0.0)
    with pytest.raises(ServiceUnavailable):
        CALLER.toy.ask("nobody", "listens", 3.0)
    with pytest.raises(ServiceError, match="has no method"):
        CALLER.toy.ask("toy", "fly", 3.0)
