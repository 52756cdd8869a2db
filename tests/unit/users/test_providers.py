import pytest

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
    monkeypatch.setattr(providers.tpool, "execute", lambda *work: computed.append(work[1][:31]) or execute(*work))
    assert not passwords.matches("x", passwords.hash("y"))
    assert not passwords.matches("x", None)
    assert computed[1:] == ["$argon2id$v=19$m=19456,t=2,p=1$"] * 2


def test_too_many_at_once_are_turned_away(passwords, monkeypatch):
    monkeypatch.setattr(providers, "MAX_WAIT_SECONDS", 0.01)
    for _ in range(providers.AT_ONCE):
        passwords._turns.acquire()
    with pytest.raises(ServiceUnavailable, match="logging in"):
        passwords.hash("x")
    passwords._turns.release()
    assert passwords.hash("x")
