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


def test_a_hash_is_argon2id_and_matches_its_password_only(passwords):
    hashed = passwords.hash("Demo-pass-2026!")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.matches("Demo-pass-2026!", hashed)
    assert not passwords.matches("demo-pass-2026!", hashed)


def test_what_is_no_hash_matches_nothing(passwords):
    assert not passwords.matches("x", "not a hash")


def test_without_an_account_just_as_much_is_computed(passwords, monkeypatch):
    computed = []
    execute = providers.tpool.execute
    monkeypatch.setattr(providers.tpool, "execute", lambda *work: computed.append(work[2][:31]) or execute(*work))
    assert not passwords.matches("x", passwords.hash("y"))
    assert not passwords.matches("x", None)
    assert computed[1:] == ["$argon2id$v=19$m=19456,t=2,p=1$"] * 2


def test_too_many_at_once_are_turned_away(passwords, monkeypatch):
    monkeypatch.setattr(providers, "MAX_WAIT_SECONDS", 0.01)
    for _ in range(providers.AT_ONCE):
        passwords._slots.acquire()
    with pytest.raises(ServiceUnavailable, match="logging in"):
        passwords.hash("x")
    passwords._slots.release()
    assert passwords.hash("x")


def test_a_hash_of_other_parameters_is_renewed(passwords):
    weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("Demo-pass-2026!")
    assert passwords.matches("Demo-pass-2026!", weak)
    renewed = passwords.renewed("Demo-pass-2026!", weak)
    assert renewed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.matches("Demo-pass-2026!", renewed)
    assert passwords.renewed("Demo-pass-2026!", renewed) is None


def test_hashing_does_not_stop_the_process(passwords):
    """While eight passwords are hashed, a greenlet that wants to run every millisecond does."""
    hashing = [eventlet.spawn(passwords.hash, "Demo-pass-2026!") for _ in range(8)]
    longest, ticks, last = 0.0, 0, time.monotonic()
    while not all(one.dead for one in hashing):
        eventlet.sleep(0.001)
        longest, ticks, last = max(longest, time.monotonic() - last), ticks + 1, time.monotonic()
    took = min(timeit.repeat(lambda: passwords._hasher.hash("x"), number=1, repeat=3))
    assert ticks > 8
    assert longest < 4 * took  # in the event loop's own thread it would be eight times


def test_hashing_gives_way_to_everything_else(passwords):
    """In its own thread only: the service itself keeps its priority."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    nicenesses = {passwords._run_in_thread(lambda _: os.getpriority(os.PRIO_PROCESS, 0), "") for _ in range(5)}
    assert nicenesses == {max(own, providers.NICENESS)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
