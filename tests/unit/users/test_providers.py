import os
import time
import timeit

import eventlet
import pytest
from argon2 import PasswordHasher

from contracts.errors import ServiceUnavailable
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


def test_too_many_concurrent_hashes_are_refused(passwords, monkeypatch):
    monkeypatch.setattr(providers, "MAX_WAIT_SECONDS", 0.01)
    for _ in range(providers.AT_ONCE):
        passwords._slots.acquire()
    with pytest.raises(ServiceUnavailable, match="logging in"):
        passwords.hash("x")
    passwords._slots.release()
    assert passwords.hash("x")


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
