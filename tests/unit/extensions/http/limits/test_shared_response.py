import eventlet
import pytest

from contracts.errors import ServiceUnavailable
from extensions.http.limits import shared_response
from extensions.http.limits.shared_response import SharedResponse


@pytest.fixture
def started():
    """The signals of the runs that were started; `started.append` starts one."""
    return []


def test_concurrent_requests_share_one_run(started):
    shared = SharedResponse(0.05)
    signals = {shared.get(started.append) for _ in range(100)}
    assert list(signals) == started
    eventlet.sleep(0.1)  # a run that takes longer than the maximum age is not repeated
    assert shared.get(started.append) is started[0]
    started[0].send("response")
    assert shared.get(started.append) is started[1]


def test_a_response_is_reused_until_its_maximum_age(started):
    shared = SharedResponse(0.05)
    shared.get(started.append).send("response")
    assert shared.get(started.append).wait() == "response"
    eventlet.sleep(0.06)
    assert not shared.get(started.append).ready()


def test_an_error_expires_even_where_a_response_never_does(started, monkeypatch):
    monkeypatch.setattr(shared_response, "ERROR_SECONDS", 0.05)
    shared = SharedResponse(float("inf"))
    shared.get(started.append).send(ServiceUnavailable())
    assert len({shared.get(started.append) for _ in range(10)}) == 1
    eventlet.sleep(0.06)
    shared.get(started.append).send("response")
    eventlet.sleep(0.06)
    assert shared.get(started.append).wait() == "response"
    assert len(started) == 2


def test_an_error_while_starting_a_run_is_the_shared_response():
    def fail(_signal):
        raise ServiceUnavailable

    assert isinstance(SharedResponse(1.0).get(fail).wait(), ServiceUnavailable)
