import base64
import hashlib
import json
import statistics
import threading
import time
from uuid import uuid4

import pytest
import sqlalchemy
from argon2 import PasswordHasher

from contracts.errors import (
    IdempotencyKeyReused,
    PermissionDenied,
    ServiceUnavailable,
    UpstreamTimeout,
    ValidationFailed,
)
from contracts.users import (
    AlreadyCompleted,
    InvalidCredentials,
    InvalidToken,
    TokenRevoked,
    UserAlreadyExists,
    UserInactive,
    UserNotFound,
    WeakPassword,
)
from tests.support import database, eventually
from users import use_cases
from users.token_issuer import load_signing_keys

PASSWORD = "Demo-pass-2026!"


def actor(session):
    return {"user_id": session["user"]["id"], "roles": session["user"]["roles"]}


class TestRegister:
    def test_opens_a_session(self, users, ayse):
        assert ayse["token_type"] == "Bearer"
        assert ayse["expires_in"] == 900
        assert set(ayse) == {"user", "access_token", "refresh_token", "token_type", "expires_in"}
        user = ayse["user"]
        assert set(user) == {
            "id",
            "email",
            "roles",
            "is_active",
            "email_verified",
            "language",
            "created_at",
            "updated_at",
        }
        assert (user["email"], user["roles"], user["is_active"]) == ("ayse@example.com", ["customer"], True)
        verified = users.verify(ayse["access_token"])
        assert (verified["valid"], verified["user_id"], verified["roles"]) == (True, user["id"], ["customer"])

    def test_publishes_an_event(self, bus, ayse):
        (event,) = bus.wait_for("user.registered", ayse["user"]["id"])
        assert event.email == "ayse@example.com"

    @pytest.mark.parametrize("email", ["ayse@example.com", " AYSE@Example.com "])
    def test_an_address_is_registered_once_regardless_of_case(self, users, ayse, email):
        with pytest.raises(UserAlreadyExists):
            users.register(email, PASSWORD)

    def test_one_of_many_concurrent_registrations_succeeds(self, users):
        outcomes = []

        def register():
            try:
                outcomes.append(users.register("race@example.com", PASSWORD)["user"]["id"])
            except UserAlreadyExists:
                outcomes.append(None)

        threads = [threading.Thread(target=register) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes.count(None) == 5
        assert len(users.list_users()["items"]) == 1

    def test_the_same_key_gives_the_same_result(self, users, admin):
        first = users.register("key@example.com", PASSWORD, idempotency_key="k-1")
        users.set_roles(first["user"]["id"], ["admin"])
        assert users.register(" KEY@example.com", PASSWORD, idempotency_key="k-1") == first
        assert len(users.list_users()["items"]) == 2
        assert users.refresh(first["refresh_token"])["user"]["roles"] == ["admin"]

    def test_a_repetition_returns_no_token_that_was_replaced(self, users):
        """If it were used, the session of the client that has the successor would end."""
        first = users.register("key@example.com", PASSWORD, idempotency_key="k-1")
        renewed = users.refresh(first["refresh_token"])
        with pytest.raises(AlreadyCompleted):
            users.register("key@example.com", PASSWORD, idempotency_key="k-1")
        assert users.refresh(renewed["refresh_token"])

    @pytest.mark.parametrize("end", ["log out", "expire", "switch off"])
    def test_a_repetition_returns_no_session_that_has_ended(self, users, end):
        first = users.register("key@example.com", PASSWORD, idempotency_key="k-1")
        if end == "log out":
            users.logout(first["refresh_token"])
        elif end == "switch off":
            users.set_active(first["user"]["id"], is_active=False)
        else:
            with database("users").begin() as connection:
                connection.execute(sqlalchemy.text("UPDATE refresh_families SET expires_at = now()"))
        with pytest.raises(AlreadyCompleted):
            users.register("key@example.com", PASSWORD, idempotency_key="k-1")

    def test_refresh_tokens_are_not_computed_from_signing_keys(self, users, environment):
        first = users.register("key@example.com", PASSWORD, idempotency_key="k-1")
        for key in load_signing_keys(environment["JWT_PRIVATE_KEY_FILE"]):
            signed = key.private.sign(f"first refresh token of {first['user']['id']}".encode())
            stolen = base64.urlsafe_b64encode(hashlib.sha256(signed).digest()).decode().rstrip("=")
            with pytest.raises(InvalidToken):
                users.refresh(stolen)
        assert users.refresh(first["refresh_token"])

    def test_a_failure_after_the_account_was_created_has_an_unknown_result(self, users, monkeypatch):
        repeat = use_cases.repeat_registration

        def lose_the_database(session, *arguments):
            session.execute(sqlalchemy.text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return repeat(session, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(use_cases, "repeat_registration", lose_the_database)
            with pytest.raises(UpstreamTimeout, match="with the same key"):
                users.register("key@example.com", PASSWORD, idempotency_key="k-1")
        account = users.register("key@example.com", PASSWORD, idempotency_key="k-1")
        assert users.list_users()["items"] == [account["user"]]

    def test_a_key_belongs_to_one_address(self, users):
        first = users.register("key@example.com", PASSWORD, idempotency_key="k-1")
        with pytest.raises(IdempotencyKeyReused):
            users.register("other@example.com", PASSWORD, idempotency_key="k-1")
        assert users.list_users()["items"] == [first["user"]]

    @pytest.mark.parametrize(
        ("password", "key", "error"),
        [
            ("Other-pass-2026!", "k-1", IdempotencyKeyReused),
            (PASSWORD, "k-2", UserAlreadyExists),
            (PASSWORD, None, UserAlreadyExists),
        ],
    )
    def test_another_key_or_body_is_refused(self, users, password, key, error):
        users.register("key@example.com", PASSWORD, idempotency_key="k-1")
        with pytest.raises(error):
            users.register("key@example.com", password, idempotency_key=key)

    def test_a_key_does_not_match_a_registration_without_a_key(self, users, ayse):
        with pytest.raises(UserAlreadyExists):
            users.register("ayse@example.com", PASSWORD, idempotency_key="k-1")

    def test_refuses_weak_passwords(self, users):
        with pytest.raises(WeakPassword, match="well-known"):
            users.register("ayse@example.com", "Password123!")

    def test_names_invalid_fields(self, users):
        with pytest.raises(ValidationFailed) as refused:
            users.register("nobody", None)
        assert [error.field for error in refused.value.errors] == ["email", "password"]

    def test_stores_no_password(self, ayse):
        with database("users").connect() as connection:
            stored = connection.scalars(sqlalchemy.text("SELECT password_hash FROM users")).one()
            everything = connection.scalars(sqlalchemy.text("SELECT u::text FROM users u")).one()
        assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert PASSWORD not in everything


class TestLogin:
    def test_accepts_any_spelling_of_the_address(self, users, ayse):
        session = users.login("AYSE@example.com ", PASSWORD)
        assert session["user"] == ayse["user"]
        assert session["refresh_token"] != ayse["refresh_token"]

    @pytest.mark.parametrize(
        ("email", "password"), [("ayse@example.com", "Wrong-pass-2026!"), ("b@example.com", PASSWORD)]
    )
    def test_does_not_reveal_which_credential_was_wrong(self, users, ayse, email, password):
        with pytest.raises(InvalidCredentials) as refused:
            users.login(email, password)
        assert str(refused.value) == InvalidCredentials.detail

    def test_refuses_an_inactive_account(self, users, ayse):
        users.set_active(ayse["user"]["id"], is_active=False)
        with pytest.raises(UserInactive):
            users.login("ayse@example.com", PASSWORD)
        with pytest.raises(InvalidCredentials):
            users.login("ayse@example.com", "Wrong-pass-2026!")

    def test_takes_as_long_for_an_unknown_address(self, users):
        """Alternating, so that other load on the machine affects both. At most eight attempts for each address,
        because further attempts are rate limited."""
        took = {"known": [], "unknown": []}
        for number in range(3):
            users.register(f"known{number}@example.com", PASSWORD)
        for tried in range(24):
            for name, seconds in took.items():
                began = time.perf_counter()
                with pytest.raises(InvalidCredentials):
                    users.login(f"{name}{tried % 3}@example.com", "Wrong-pass-2026!")
                seconds.append(time.perf_counter() - began)
        known, unknown = (statistics.median(seconds) for seconds in took.values())
        assert 0.7 < known / unknown < 1.4  # without the hash for unknown addresses it would be 2 or more

    def test_renews_a_hash_with_other_parameters(self, users, ayse):
        with database("users").begin() as connection:
            weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
            connection.execute(sqlalchemy.text("UPDATE users SET password_hash = :weak"), {"weak": weak})
        outcomes = []

        def log_in():
            try:
                outcomes.append(users.login("ayse@example.com", PASSWORD)["user"])
            except ServiceUnavailable:  # a slow machine refuses a login that would wait for too long
                return False
            return True

        threads = [threading.Thread(target=eventually, args=[log_in]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [ayse["user"]] * 6  # logins that lost the race for the renewal succeed too
        with database("users").connect() as connection:
            stored = connection.scalars(sqlalchemy.text("SELECT password_hash FROM users")).one()
        assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        with pytest.raises(InvalidCredentials):
            users.login("ayse@example.com", "Wrong-pass-2026!")
        assert users.login("ayse@example.com", PASSWORD)["user"] == ayse["user"]

    def test_hashing_does_not_block_other_calls(self, users, ayse):
        # Ten logins take a quarter of a second to compute. If they blocked other calls, only three calls would return.
        logins = [threading.Thread(target=users.login, args=["ayse@example.com", PASSWORD]) for _ in range(10)]
        for login in logins:
            login.start()
        answered = 0
        while any(login.is_alive() for login in logins):
            users.verify(ayse["access_token"])
            answered += 1
        assert answered >= 8


class TestRoles:
    def test_are_replaced_as_a_whole(self, users, bus, ayse, admin):
        user_id = ayse["user"]["id"]
        changed = users.set_roles(user_id, ["admin", "customer", "admin"][:2], actor=admin)
        assert changed["roles"] == ["customer", "admin"]
        assert changed["updated_at"] > ayse["user"]["updated_at"]
        (event,) = bus.wait_for("user.updated", user_id)
        assert json.loads(event.to_json()) == {
            "user_id": user_id,
            "roles": ["customer", "admin"],
            "is_active": True,
            "language": "en",
            "at": changed["updated_at"],
        }
        assert users.verify(ayse["access_token"])["roles"] == ["customer", "admin"]

    def test_the_same_roles_again_publish_no_event(self, users, bus, ayse):
        users.set_roles(ayse["user"]["id"], ["customer"])
        users.set_active(ayse["user"]["id"], is_active=True)
        other = users.register("marker@example.com", PASSWORD)
        bus.wait_for("user.registered", other["user"]["id"])
        assert bus.events("user.updated") == []

    def test_an_account_has_at_least_one(self, users, ayse):
        with pytest.raises(ValidationFailed, match="roles"):
            users.set_roles(ayse["user"]["id"], [])

    @pytest.mark.parametrize(("method", "argument"), [("set_roles", ["admin"]), ("set_active", True)])
    def test_can_be_changed_by_administrators_only(self, users, ayse, method, argument):
        for user_id in (ayse["user"]["id"], str(uuid4()), "nonsense"):
            with pytest.raises(PermissionDenied):
                getattr(users, method)(user_id, argument, actor=actor(ayse))
        with pytest.raises(UserNotFound):
            getattr(users, method)(str(uuid4()), argument)


class TestDeactivation:
    def test_ends_all_sessions_and_logins(self, users, bus, ayse, admin):
        user_id = ayse["user"]["id"]
        assert users.set_active(user_id, is_active=False, actor=admin)["is_active"] is False
        (event,) = bus.wait_for("user.updated", user_id)
        assert event.is_active is False
        with pytest.raises(TokenRevoked):
            users.verify(ayse["access_token"])
        with pytest.raises(UserInactive):
            users.refresh(ayse["refresh_token"])

    def test_reactivation_restores_no_session(self, users, ayse):
        users.set_active(ayse["user"]["id"], is_active=False)
        users.set_active(ayse["user"]["id"], is_active=True)
        with pytest.raises(TokenRevoked):
            users.refresh(ayse["refresh_token"])
        assert users.login("ayse@example.com", PASSWORD)


class TestRead:
    def test_users_can_read_their_own_account(self, users, ayse):
        assert users.get_user(ayse["user"]["id"], actor=actor(ayse)) == ayse["user"]

    def test_other_accounts_are_not_found(self, users, ayse, admin):
        with pytest.raises(UserNotFound):
            users.get_user(admin["user_id"], actor=actor(ayse))
        with pytest.raises(UserNotFound):
            users.get_user(str(uuid4()))
        assert users.get_user(ayse["user"]["id"], actor=admin) == ayse["user"]

    def test_the_list_is_for_administrators_and_sorted_newest_first(self, users, ayse, admin):
        with pytest.raises(PermissionDenied):
            users.list_users(actor=actor(ayse))
        first = users.list_users(limit=1, actor=admin)
        second = users.list_users(limit=1, cursor=first["next_cursor"], actor=admin)
        emails = [page["items"][0]["email"] for page in (first, second)]
        assert emails == ["admin@example.com", "ayse@example.com"]
        assert second["next_cursor"] is None
