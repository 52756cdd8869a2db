import os
import time
import timeit
from contextlib import contextmanager

import eventlet
import pytest
from argon2 import PasswordHasher

from contracts.errors import ServiceUnavailable
from extensions.observability.traces import Trace, use_trace
from tests.stopwatch import Stopwatch
from users import providers


@pytest.fixture
def passwords():
    passwords = providers.Passwords()
    passwords.setup()
    return passwords


def test_a_hash_is_argon2id_and_matches_only_its_password(passwords):
    hashed = passwords.hash("Demo-pass-2026!")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.matches("Demo-pass-2026!", hashed)
    assert not passwords.matches("demo-pass-2026!", hashed)


def test_an_invalid_hash_matches_no_password(passwords):
    assert not passwords.matches("x", "not a hash")


def test_an_unknown_account_costs_the_same_computation(passwords, monkeypatch):
    computed = []
    execute = providers.tpool.execute
    monkeypatch.setattr(providers.tpool, "execute", lambda *work: computed.append(work[2][:31]) or execute(*work))
    assert not passwords.matches("x", passwords.hash("y"))
    assert not passwords.matches("x", None)
    assert computed[1:] == ["$argon2id$v=19$m=19456,t=2,p=1$"] * 2


@pytest.fixture
def busy(passwords, monkeypatch):
    """All threads compute hashes that take until the end of the test, as on a saturated machine."""
    end = eventlet.Event()
    with monkeypatch.context() as starved:
        starved.setattr(providers.tpool, "execute", lambda *_work: end.wait())
        hashing = [eventlet.spawn(passwords.hash, "x") for _ in range(providers.AT_ONCE)]
        eventlet.sleep(0)
    yield
    end.send("")
    for one in hashing:
        one.wait()
    assert passwords.hash("x")


@pytest.fixture
def request_of():
    """`with request_of(seconds):` a request with this time until its deadline."""

    @contextmanager
    def begin(seconds):
        with use_trace(Trace(deadline=time.monotonic() + seconds)):
            yield

    return begin


def test_a_hash_that_gets_no_thread_is_refused_in_time(passwords, busy, request_of):
    with request_of(0.4), pytest.raises(ServiceUnavailable, match="logging in") as refused:
        passwords.hash("x")
    assert refused.value.retry_after
    with request_of(0.4):
        waited = Stopwatch()
        with pytest.raises(ServiceUnavailable):
            passwords.hash("x")
        assert waited.seconds < 0.3  # a part of the time is left to answer


def test_a_hash_that_would_not_be_ready_in_time_is_refused_at_once(passwords, busy, request_of):
    for _ in range(200):  # hashes on a saturated machine
        passwords._bulkhead.record_duration(1.0)
    waited = Stopwatch()
    with request_of(2.5), pytest.raises(ServiceUnavailable):
        passwords.hash("x")
    assert waited.seconds < 0.05


def test_hashes_that_wait_are_bounded(passwords, busy):
    waiting = [eventlet.spawn(passwords.hash, "x") for _ in range(providers.MAX_HASHES - providers.AT_ONCE)]
    eventlet.sleep(0)
    with pytest.raises(ServiceUnavailable):
        passwords.hash("x")
    for one in waiting:
        one.kill()


def test_a_hash_with_other_parameters_is_renewed(passwords):
    weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("Demo-pass-2026!")
    assert passwords.matches("Demo-pass-2026!", weak)
    renewed = passwords.renewed("Demo-pass-2026!", weak)
    assert renewed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.matches("Demo-pass-2026!", renewed)
    assert passwords.renewed("Demo-pass-2026!", renewed) is None


def test_hashing_does_not_block_the_event_loop(passwords):
    """While eight passwords are hashed, a greenlet that is scheduled every millisecond still runs."""
    hashing = [eventlet.spawn(passwords.hash, "Demo-pass-2026!") for _ in range(8)]
    longest, ticks, last = 0.0, 0, time.monotonic()
    while not all(one.dead for one in hashing):
        eventlet.sleep(0.001)
        longest, ticks, last = max(longest, time.monotonic() - last), ticks + 1, time.monotonic()
    took = min(timeit.repeat(lambda: passwords._hasher.hash("x"), number=1, repeat=3))
    assert ticks > 8
    assert longest < 4 * took  # in the thread of the event loop it would be eight times


def test_hashing_threads_have_a_lower_priority(passwords):
    """Only the hashing thread: the service keeps its priority."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    nicenesses = {passwords._run_in_thread(lambda _: os.getpriority(os.PRIO_PROCESS, 0), "") for _ in range(5)}
    assert nicenesses == {max(own, providers.NICENESS)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
