import sys
import threading

import pytest
import sqlalchemy
from nameko import config

from contracts.errors import ValidationFailed
from contracts.users import InvalidToken, TokenRevoked
from deploy import config_file, keys
from extensions.storage.periodic import PeriodicMethods
from tests.support import database, eventually, owned_database
from users import use_cases
from users.service import UsersService

PASSWORD = "Demo-pass-2026!"


def pair(session):
    return session["access_token"], session["refresh_token"]


def age(seconds, column="replaced_at", table="refresh_tokens"):
    """Move a time column back, as if this time had passed."""
    with database("users").begin() as connection:
        change = f"UPDATE {table} SET {column} = {column} - make_interval(secs => {seconds})"
        connection.execute(sqlalchemy.text(change))


def stored(statement):
    with database("users").connect() as connection:
        return connection.scalars(sqlalchemy.text(statement)).all()


class TestCompromisedKeys:
    def test_retiring_them_ends_every_session(self, users, ayse, monkeypatch, tmp_path, capsys):
        others = [users.login("ayse@example.com", PASSWORD) for _ in range(2)]
        monkeypatch.setattr(use_cases, "MAX_ENDED", 2)  # several transactions
        private, public = tmp_path / "private.pem", tmp_path / "public.pem"
        keys.ensure(private, public)
        monkeypatch.setattr(
            config_file, "load", lambda: dict(config, JWT_PRIVATE_KEY_FILE=private, JWT_PUBLIC_KEY_FILE=public)
        )
        monkeypatch.setattr(sys, "argv", ["deploy.keys", "retire", "--compromised"])
        assert keys.main() == 0
        assert "3 sessions have ended" in capsys.readouterr().out
        for session in (ayse, *others):
            with pytest.raises(TokenRevoked):
                users.refresh(session["refresh_token"])
            with pytest.raises(TokenRevoked):
                users.verify(session["access_token"])
        assert len(users.list_changed(seconds=60)["items"][0]["ended_sessions"]) == 3  # what a gateway asks for
        assert users.refresh(users.login("ayse@example.com", PASSWORD)["refresh_token"])


class TestRefresh:
    def test_gives_a_new_pair(self, users, ayse):
        renewed = users.refresh(ayse["refresh_token"])
        assert renewed["user"] == ayse["user"]
        assert not set(pair(renewed)) & set(pair(ayse))
        assert users.verify(renewed["access_token"])["user_id"] == ayse["user"]["id"]
        assert pair(users.refresh(renewed["refresh_token"])) != pair(renewed)

    def test_a_lost_response_can_be_fetched_again(self, users, ayse):
        renewed = users.refresh(ayse["refresh_token"])
        users.set_roles(ayse["user"]["id"], ["customer", "admin"])
        age(seconds=8)  # plus the duration of the calls
        assert pair(users.refresh(ayse["refresh_token"])) == pair(renewed)

    def test_an_old_token_ends_the_family(self, users, ayse):
        renewed = users.refresh(ayse["refresh_token"])
        other_login = users.login("ayse@example.com", PASSWORD)
        age(seconds=11)
        for token in (ayse["refresh_token"], renewed["refresh_token"], ayse["refresh_token"]):
            with pytest.raises(TokenRevoked):
                users.refresh(token)
        assert users.refresh(other_login["refresh_token"])

    def test_concurrent_refreshes_get_one_pair(self, users, ayse):
        pairs = []
        threads = [
            threading.Thread(target=lambda: pairs.append(pair(users.refresh(ayse["refresh_token"])))) for _ in range(8)
        ]
        with database("users").begin() as connection:
            # All wait for the same lock, so that they continue at the same time.
            connection.execute(sqlalchemy.text("SELECT 1 FROM users FOR UPDATE"))
            for thread in threads:
                thread.start()
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'users'"
            eventually(lambda: stored(waiting) == [8])
        for thread in threads:
            thread.join()
        assert len(pairs) == 8
        assert len(set(pairs)) == 1
        assert stored("SELECT count(*) FROM refresh_tokens") == [2]

    def test_has_the_current_roles(self, users, ayse):
        users.set_roles(ayse["user"]["id"], ["admin"])
        renewed = users.refresh(ayse["refresh_token"])
        assert renewed["user"]["roles"] == ["admin"]

    def test_a_login_ends_after_thirty_days(self, users, ayse):
        age(seconds=30 * 86400 - 60, column="expires_at", table="refresh_families")
        renewed = users.refresh(ayse["refresh_token"])
        age(seconds=61, column="expires_at", table="refresh_families")
        with pytest.raises(InvalidToken):
            users.refresh(renewed["refresh_token"])

    @pytest.mark.parametrize("token", ["x", "é", "A" * 43])
    def test_refuses_text_that_is_not_a_token(self, users, token):
        with pytest.raises(InvalidToken):
            users.refresh(token)

    @pytest.mark.parametrize("token", ["", None, 5, "x" * 5000])
    def test_refuses_values_that_are_not_text(self, users, token):
        with pytest.raises(ValidationFailed, match="refresh_token"):
            users.refresh(token)

    def test_the_database_contains_no_token(self, users, ayse):
        renewed = users.refresh(ayse["refresh_token"])
        rows = "".join(stored("SELECT t::text FROM refresh_tokens t"))
        for token in (*pair(ayse), *pair(renewed)):
            assert token not in rows
            assert token.encode().hex() not in rows


class TestLogout:
    def test_ends_the_session_and_can_be_repeated(self, users, ayse):
        renewed = users.refresh(ayse["refresh_token"])
        me = {"user_id": ayse["user"]["id"], "roles": ["customer"]}
        for token in (renewed["refresh_token"], ayse["refresh_token"], renewed["refresh_token"]):
            assert users.logout(token, actor=me) is None
        with pytest.raises(TokenRevoked):
            users.refresh(renewed["refresh_token"])

    def test_other_sessions_continue(self, users, ayse):
        other = users.login("ayse@example.com", PASSWORD)
        users.logout(ayse["refresh_token"])
        assert users.refresh(other["refresh_token"])

    def test_ends_only_sessions_of_the_caller(self, users, ayse, admin):
        for token in (ayse["refresh_token"], "unknown"):
            with pytest.raises(InvalidToken):
                users.logout(token, actor=admin)
        assert users.refresh(ayse["refresh_token"])


class TestVerify:
    @pytest.mark.parametrize("token", ["x", "a.b.c", "é"])
    def test_refuses_text_that_is_not_a_token(self, users, token):
        with pytest.raises(InvalidToken):
            users.verify(token)

    def test_refuses_a_refresh_token(self, users, ayse):
        with pytest.raises(InvalidToken):
            users.verify(ayse["refresh_token"])

    def test_refuses_the_token_of_a_deleted_account(self, users, ayse):
        with owned_database("users").begin() as connection:
            connection.execute(sqlalchemy.text("DELETE FROM users"))
        with pytest.raises(TokenRevoked):
            users.verify(ayse["access_token"])


def test_an_expired_session_that_is_locked_delays_no_other(shared_services, users):
    [container] = shared_services(UsersService)
    timers = container.shared_extensions[PeriodicMethods]
    users.register("ayse@example.com", PASSWORD)
    for _ in range(2):
        users.login("ayse@example.com", PASSWORD)
    age(seconds=10**9, column="expires_at", table="refresh_families")
    with database("users").begin() as connection:
        locked = "SELECT family_id FROM refresh_tokens LIMIT 1 FOR UPDATE"
        family = connection.scalar(sqlalchemy.text(locked))
        timers.trigger("delete_expired_sessions")
        eventually(lambda: stored("SELECT id FROM refresh_families") == [family])
    eventually(lambda: timers.trigger("delete_expired_sessions") or not stored("SELECT id FROM refresh_families"))


def test_expired_sessions_are_deleted(users, ayse):
    live = users.login("ayse@example.com", PASSWORD)
    users.refresh(ayse["refresh_token"])
    with database("users").begin() as connection:
        oldest = "(SELECT min(id::text)::uuid FROM refresh_families)"
        connection.execute(sqlalchemy.text(f"UPDATE refresh_families SET expires_at = now() WHERE id = {oldest}"))
    with sqlalchemy.orm.Session(database("users")) as session:
        expired = use_cases.lock_expired_sessions(session)
        assert len(expired) == 1
        use_cases.delete_expired_sessions(session, expired)
        assert use_cases.lock_expired_sessions(session) == []
        session.commit()
    assert stored("SELECT count(*) FROM refresh_tokens") == [1]
    assert users.refresh(live["refresh_token"])
