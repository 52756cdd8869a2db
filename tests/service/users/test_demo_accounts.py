import pytest
from nameko import config

from contracts.users import InvalidCredentials, TokenRevoked, UserInactive
from deploy import demo_accounts
from deploy.seed import ADMIN, CUSTOMER, DEFAULT_PASSWORD

OWN_PASSWORD = "correct horse 7 battery"


def run(monkeypatch, environment):
    monkeypatch.setattr(demo_accounts, "load", lambda: dict(config, ENVIRONMENT=environment))
    return demo_accounts.main()


@pytest.fixture
def demo(users):
    """The sessions of the demo accounts."""
    sessions = [users.register(email, DEFAULT_PASSWORD) for email in (ADMIN, CUSTOMER)]
    users.set_roles(sessions[0]["user"]["id"], ["customer", "admin"])
    return sessions


def test_production_switches_off_accounts_with_the_published_password(users, demo, monkeypatch, capsys):
    other = users.register("boss@example.com", DEFAULT_PASSWORD)
    users.set_roles(other["user"]["id"], ["admin"])
    own = users.register("own@example.com", OWN_PASSWORD)
    users.set_roles(own["user"]["id"], ["admin"])
    assert run(monkeypatch, "production") == 0
    said = capsys.readouterr().out
    for session in (*demo, other):
        email = session["user"]["email"]
        assert email in said
        with pytest.raises(UserInactive):
            users.login(email, DEFAULT_PASSWORD)
        with pytest.raises(TokenRevoked):
            users.verify(session["access_token"])
    changed = {change["user_id"] for change in users.list_changed(seconds=60)["items"] if not change["is_active"]}
    assert changed == {session["user"]["id"] for session in (*demo, other)}  # what a gateway asks for
    assert users.refresh(own["refresh_token"])
    assert "own@example.com" not in said
    assert run(monkeypatch, "production") == 0
    assert capsys.readouterr().out == ""


def test_accounts_with_a_password_of_their_own_stay(users, monkeypatch, capsys):
    session = users.register(ADMIN, OWN_PASSWORD)
    assert run(monkeypatch, "production") == 0
    assert users.refresh(session["refresh_token"])
    with pytest.raises(InvalidCredentials):
        users.login(ADMIN, DEFAULT_PASSWORD)
    assert capsys.readouterr().out == ""


def test_elsewhere_the_demo_goes_on(users, demo, monkeypatch):
    assert run(monkeypatch, "development") == 0
    assert users.login(ADMIN, DEFAULT_PASSWORD)
