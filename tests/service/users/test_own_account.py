"""What users do with their own accounts: passwords, verification of the address, language, deletion."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import sqlalchemy
from argon2 import PasswordHasher
from nameko import config

from contracts.errors import InvalidState, PreconditionFailed, RateLimited, ValidationFailed
from contracts.etags import etag
from contracts.users import (
    InvalidCredentials,
    InvalidMailedToken,
    InvalidToken,
    TokenRevoked,
    TooManyFailedLogins,
    UserInactive,
    UserNotFound,
    WeakPassword,
    WrongPassword,
)
from extensions.security import access_tokens
from extensions.storage.periodic import PeriodicMethods
from tests.support import database, eventually, owned_database
from users import mailed_tokens
from users.service import UsersService

PASSWORD = "Demo-pass-2026!"
NEW = "Another-pass-2027!"
EMAIL = "ayse@example.com"
RESET, VERIFICATION = "user.password_reset_requested", "user.email_verification_requested"


def actor(session):
    return {"user_id": session["user"]["id"], "roles": session["user"]["roles"]}


def session_id(session):
    key = access_tokens.load_public_keys(config["JWT_PUBLIC_KEY_FILE"])
    return str(access_tokens.verify(session["access_token"], key).session_id)


def execute(statement, **parameters):
    with owned_database("users").begin() as connection:
        return connection.execute(sqlalchemy.text(statement), parameters)


def stored(statement, **parameters):
    with database("users").connect() as connection:
        return connection.scalars(sqlalchemy.text(statement), parameters).all()


def marker(users, bus):
    """Wait until every event that was committed before is published."""
    other = users.register(f"{uuid4().hex}@example.com", PASSWORD)
    bus.wait_for("user.registered", other["user"]["id"])


def expire_tokens():
    execute("UPDATE mailed_tokens SET expires_at = clock_timestamp() - interval '1 s'")


class TestChangingThePassword:
    def test_replaces_it_and_ends_the_other_sessions(self, users, bus, ayse):
        here, elsewhere = users.login(EMAIL, PASSWORD), users.login(EMAIL, PASSWORD)
        assert users.change_password(PASSWORD, NEW, session_id=session_id(here), actor=actor(ayse)) is None
        for ended in (ayse, elsewhere):
            with pytest.raises(TokenRevoked):
                users.refresh(ended["refresh_token"])
            with pytest.raises(TokenRevoked):
                users.verify(ended["access_token"])
        assert users.verify(here["access_token"])["valid"]
        assert users.refresh(here["refresh_token"])
        with pytest.raises(InvalidCredentials):
            users.login(EMAIL, PASSWORD)
        assert users.login(EMAIL, NEW)["user"]["id"] == ayse["user"]["id"]
        (event,) = bus.wait_for("user.updated", ayse["user"]["id"])
        assert {str(one) for one in event.ended_sessions} == {session_id(ayse), session_id(elsewhere)}

    def test_without_a_session_to_keep_all_end(self, users, ayse):
        users.change_password(PASSWORD, NEW, actor=actor(ayse))
        with pytest.raises(TokenRevoked):
            users.refresh(ayse["refresh_token"])

    def test_a_wrong_password_counts_as_a_failed_login(self, users, ayse):
        for _ in range(10):
            with pytest.raises(WrongPassword):
                users.change_password(NEW, NEW, address="192.0.2.1", actor=actor(ayse))
        with pytest.raises(TooManyFailedLogins):
            users.change_password(PASSWORD, NEW, address="192.0.2.1", actor=actor(ayse))
        with pytest.raises(TooManyFailedLogins):
            users.login(EMAIL, PASSWORD, address="192.0.2.1")
        assert users.login(EMAIL, PASSWORD, address="192.0.2.2")

    def test_refuses_weak_ones_and_changes_nothing(self, users, ayse):
        with pytest.raises(WeakPassword):
            users.change_password(PASSWORD, "password", actor=actor(ayse))
        assert users.login(EMAIL, PASSWORD)

    def test_honours_the_entity_tag_of_the_account(self, users, ayse):
        with pytest.raises(PreconditionFailed):
            users.change_password(PASSWORD, NEW, actor=actor(ayse), if_match=['"another"'])
        users.change_password(PASSWORD, NEW, actor=actor(ayse), if_match=[etag(ayse["user"])])

    def test_is_for_active_accounts(self, users, ayse):
        with pytest.raises(ValidationFailed, match="actor"):
            users.change_password(PASSWORD, NEW)
        users.set_active(ayse["user"]["id"], is_active=False)
        with pytest.raises(UserInactive):
            users.change_password(PASSWORD, NEW, actor=actor(ayse))

    def test_a_login_that_renews_the_hash_meanwhile_does_not_disturb(self, users, ayse):
        weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
        execute("UPDATE users SET password_hash = :weak", weak=weak)
        calls = [
            lambda: users.change_password(PASSWORD, NEW, actor=actor(ayse)),
            *[lambda: users.login(EMAIL, PASSWORD)] * 3,
        ]
        with ThreadPoolExecutor(len(calls)) as pool:
            changing, *logins = [pool.submit(call) for call in calls]
        assert changing.exception() is None
        assert {type(one.exception()) for one in logins} <= {type(None), InvalidCredentials}
        assert users.login(EMAIL, NEW)

    def test_voids_the_links_of_resets(self, users, bus, ayse):
        token = reset_token(users, bus, ayse)
        users.change_password(PASSWORD, NEW, actor=actor(ayse))
        with pytest.raises(InvalidMailedToken):
            users.confirm_password_reset(token, "A-third-pass-2028!")


def reset_token(users, bus, session, count=1):
    users.request_password_reset(session["user"]["email"])
    return bus.wait_for(RESET, session["user"]["id"], count)[-1].token


class TestResettingThePassword:
    def test_sets_another_one_once_and_ends_all_sessions(self, users, bus, ayse):
        token = reset_token(users, bus, ayse)
        users.confirm_password_reset(token, NEW)
        with pytest.raises(TokenRevoked):
            users.refresh(ayse["refresh_token"])
        assert users.login(EMAIL, NEW)
        with pytest.raises(InvalidCredentials):
            users.login(EMAIL, PASSWORD)
        with pytest.raises(InvalidMailedToken):
            users.confirm_password_reset(token, "A-third-pass-2028!")

    def test_the_event_says_what_the_mail_needs(self, users, bus):
        session = users.register("cem@example.com", PASSWORD, "tr")
        reset_token(users, bus, session)
        (event,) = bus.wait_for(RESET, session["user"]["id"])
        assert (event.email, event.language) == ("cem@example.com", "tr")
        (lifetime,) = stored(
            "SELECT extract(epoch FROM expires_at - created_at) FROM mailed_tokens WHERE purpose = 'PASSWORD_RESET'"
        )
        assert lifetime == 30 * 60

    def test_the_database_keeps_no_token(self, users, bus, ayse):
        token = reset_token(users, bus, ayse)
        eventually(lambda: stored("SELECT count(*) FROM outbox") == [0])
        tables = stored("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        for table in tables:
            rows = "".join(stored(f'SELECT t::text FROM "{table}" t'))
            assert token not in rows, table
            assert token.encode().hex() not in rows, table

    @pytest.mark.parametrize("email", [EMAIL, "nobody@example.com"])
    def test_no_account_is_looked_up_while_the_caller_waits(self, users, bus, ayse, email):
        """So the time of the response says nothing about the address."""
        with owned_database("users").begin() as connection:
            connection.execute(sqlalchemy.text("LOCK TABLE users, mailed_tokens IN ACCESS EXCLUSIVE MODE"))
            assert users.request_password_reset(email) is None
        eventually(lambda: stored("SELECT count(*) FROM password_reset_requests") == [0])
        marker(users, bus)
        assert len(bus.events(RESET)) == (1 if email == EMAIL else 0)

    def test_an_expired_token_is_refused(self, users, bus, ayse):
        token = reset_token(users, bus, ayse)
        expire_tokens()
        with pytest.raises(InvalidMailedToken):
            users.confirm_password_reset(token, NEW)

    def test_a_weak_password_does_not_use_up_the_token(self, users, bus, ayse):
        token = reset_token(users, bus, ayse)
        with pytest.raises(WeakPassword):
            users.confirm_password_reset(token, "password")
        users.confirm_password_reset(token, NEW)

    def test_one_of_several_links_voids_the_others(self, users, bus, ayse):
        first, second = reset_token(users, bus, ayse), reset_token(users, bus, ayse, 2)
        users.confirm_password_reset(first, NEW)
        with pytest.raises(InvalidMailedToken):
            users.confirm_password_reset(second, NEW)

    def test_an_account_gets_five_mails_in_half_an_hour(self, users, bus, ayse):
        tokens = [reset_token(users, bus, ayse, count + 1) for count in range(mailed_tokens.MAX_OPEN)]
        users.request_password_reset(EMAIL)
        eventually(lambda: stored("SELECT count(*) FROM password_reset_requests") == [0])
        marker(users, bus)
        assert len(bus.events(RESET)) == mailed_tokens.MAX_OPEN
        users.confirm_password_reset(tokens[0], NEW)  # others cannot make the mail of the owner useless

    def test_accounts_that_are_switched_off_get_none(self, users, bus, ayse):
        token = reset_token(users, bus, ayse)
        users.set_active(ayse["user"]["id"], is_active=False)
        users.request_password_reset(EMAIL)
        eventually(lambda: stored("SELECT count(*) FROM password_reset_requests") == [0])
        marker(users, bus)
        assert len(bus.events(RESET)) == 1
        with pytest.raises(UserInactive):
            users.confirm_password_reset(token, NEW)
        users.set_active(ayse["user"]["id"], is_active=True)
        users.confirm_password_reset(token, NEW)

    def test_a_request_that_waited_for_too_long_is_dropped(self, users, bus, ayse):
        execute(
            "INSERT INTO password_reset_requests (id, email, request_id, traceparent, created_at)"
            " VALUES (gen_random_uuid(), :email, 'r', 't', now() - interval '31 min')",
            email=EMAIL,
        )
        users.request_password_reset("nobody@example.com")
        eventually(lambda: stored("SELECT count(*) FROM password_reset_requests") == [0])
        marker(users, bus)
        assert bus.events(RESET) == []

    def test_an_account_that_is_locked_delays_no_other(self, users, bus, ayse):
        other = users.register("cem@example.com", PASSWORD)
        with database("users").begin() as connection:
            connection.execute(sqlalchemy.text("SELECT 1 FROM users WHERE email = :email FOR UPDATE"), {"email": EMAIL})
            users.request_password_reset(EMAIL)
            users.request_password_reset("cem@example.com")
            bus.wait_for(RESET, other["user"]["id"])
            eventually(lambda: stored("SELECT email FROM password_reset_requests") == [EMAIL])

    def test_a_token_for_the_address_resets_no_password(self, users, bus, ayse):
        (event,) = bus.wait_for(VERIFICATION, ayse["user"]["id"])
        with pytest.raises(InvalidMailedToken):
            users.confirm_password_reset(event.token, NEW)


class TestVerifyingTheAddress:
    def test_a_registration_sends_a_token_that_works_once(self, users, bus, ayse):
        assert ayse["user"]["email_verified"] is False
        (event,) = bus.wait_for(VERIFICATION, ayse["user"]["id"])
        assert event.email == EMAIL
        users.verify_email(event.token)
        assert users.get_user(ayse["user"]["id"])["email_verified"] is True
        with pytest.raises(InvalidMailedToken):
            users.verify_email(event.token)

    def test_later_access_tokens_say_so(self, users, bus, ayse):
        keys = access_tokens.load_public_keys(config["JWT_PUBLIC_KEY_FILE"])
        (event,) = bus.wait_for(VERIFICATION, ayse["user"]["id"])
        first = users.refresh(ayse["refresh_token"])
        users.verify_email(event.token)
        again = users.refresh(ayse["refresh_token"])  # the same pair, byte for byte
        assert again["access_token"] == first["access_token"]
        renewed = users.refresh(again["refresh_token"])
        verified = [access_tokens.verify(one["access_token"], keys).email_verified for one in (first, renewed)]
        assert verified == [False, True]

    def test_can_be_asked_for_again(self, users, bus, ayse):
        users.request_email_verification(actor=actor(ayse))
        first, second = bus.wait_for(VERIFICATION, ayse["user"]["id"], 2)
        users.verify_email(second.token)
        with pytest.raises(InvalidMailedToken):
            users.verify_email(first.token)
        with pytest.raises(InvalidState):
            users.request_email_verification(actor=actor(ayse))

    def test_an_account_gets_five_mails_in_a_day(self, users, ayse):
        for _ in range(mailed_tokens.MAX_OPEN - 1):
            users.request_email_verification(actor=actor(ayse))
        with pytest.raises(RateLimited) as refused:
            users.request_email_verification(actor=actor(ayse))
        assert 23 * 3600 < refused.value.retry_after <= 24 * 3600 + 1

    @pytest.mark.parametrize("token", ["x", "é", "A" * 43])
    def test_other_tokens_are_refused(self, users, bus, ayse, token):
        with pytest.raises(InvalidMailedToken):
            users.verify_email(token)
        with pytest.raises(InvalidMailedToken):
            users.verify_email(reset_token(users, bus, ayse))


class TestLanguage:
    def test_is_english_unless_the_registration_says_otherwise(self, users, bus, ayse):
        assert ayse["user"]["language"] == "en"
        turkish = users.register("cem@example.com", PASSWORD, language="tr")
        assert turkish["user"]["language"] == "tr"
        (event,) = bus.wait_for("user.registered", turkish["user"]["id"])
        assert event.language == "tr"
        with pytest.raises(ValidationFailed, match="language"):
            users.register("eva@example.com", PASSWORD, language="de")

    def test_can_be_changed(self, users, bus, ayse):
        changed = users.update_profile(language="tr", actor=actor(ayse), if_match=[etag(ayse["user"])])
        assert changed["language"] == "tr"
        assert users.get_user(ayse["user"]["id"]) == changed
        (event,) = bus.wait_for("user.updated", ayse["user"]["id"])
        assert (event.language, event.is_active) == ("tr", True)
        with pytest.raises(PreconditionFailed):
            users.update_profile(language="en", actor=actor(ayse), if_match=[etag(ayse["user"])])
        with pytest.raises(ValidationFailed, match="language"):
            users.update_profile(language=None, actor=actor(ayse))

    def test_a_repeated_registration_has_the_result_of_the_first(self, users):
        first = users.register("key@example.com", PASSWORD, language="tr", idempotency_key="k-1")
        users.update_profile(language="en", actor=actor(first))
        assert users.register("key@example.com", PASSWORD, language="tr", idempotency_key="k-1") == first


class TestSessions:
    def test_are_listed_for_their_user_and_for_administrators(self, users, ayse, admin):
        users.logout(ayse["refresh_token"])
        users.login(EMAIL, PASSWORD)
        user_id = ayse["user"]["id"]
        newest, oldest = users.list_sessions(user_id, actor=actor(ayse))["items"]
        assert newest["revoked_at"] is None
        assert oldest["id"] == session_id(ayse)
        assert oldest["revoked_at"] > oldest["created_at"]
        first = users.list_sessions(user_id, limit=1, actor=admin)
        assert first["items"] == [newest]
        assert users.list_sessions(user_id, cursor=first["next_cursor"], actor=admin)["items"] == [oldest]
        with pytest.raises(UserNotFound):
            users.list_sessions(admin["user_id"], actor=actor(ayse))


class TestDeletion:
    def test_removes_what_the_user_stated_and_publishes_it(self, users, bus, ayse):
        user_id = ayse["user"]["id"]
        reset_token(users, bus, ayse)
        users.delete_account(PASSWORD, actor=actor(ayse))
        (event,) = bus.wait_for("user.deleted", user_id)
        assert str(event.user_id) == user_id
        (updated,) = bus.wait_for("user.updated", user_id)
        assert (updated.is_active, [str(one) for one in updated.ended_sessions]) == (False, [session_id(ayse)])
        assert stored("SELECT count(*) FROM mailed_tokens") == [0]
        eventually(lambda: stored("SELECT count(*) FROM outbox") == [0])
        rest = "".join(stored("SELECT u::text FROM users u"))
        assert "ayse" not in rest
        assert "argon2" not in rest

    def test_ends_all_sessions_and_logins(self, users, ayse):
        users.delete_account(PASSWORD, actor=actor(ayse))
        with pytest.raises(InvalidToken):
            users.refresh(ayse["refresh_token"])
        with pytest.raises(TokenRevoked):
            users.verify(ayse["access_token"])
        with pytest.raises(InvalidCredentials):
            users.login(EMAIL, PASSWORD)
        with pytest.raises(ValidationFailed):
            users.login(f"deleted:{ayse['user']['id']}", "none")

    def test_the_account_is_gone_for_everyone(self, users, ayse, admin):
        user_id = ayse["user"]["id"]
        users.delete_account(PASSWORD, actor=actor(ayse))
        for call in (
            lambda: users.get_user(user_id, actor=actor(ayse)),
            lambda: users.get_user(user_id, actor=admin),
            lambda: users.list_sessions(user_id, actor=admin),
            lambda: users.set_active(user_id, is_active=True, actor=admin),
            lambda: users.update_profile(language="tr", actor=actor(ayse)),
            lambda: users.change_password(PASSWORD, NEW, actor=actor(ayse)),
            lambda: users.request_email_verification(actor=actor(ayse)),
        ):
            with pytest.raises(UserNotFound):
                call()
        assert [one["email"] for one in users.list_users(actor=admin)["items"]] == ["admin@example.com"]
        changed = {one["user_id"]: one for one in users.list_changed(seconds=60)["items"]}
        assert changed[user_id]["is_active"] is False  # for a gateway that was down

    def test_can_be_repeated(self, users, bus, ayse):
        for _ in range(2):
            assert users.delete_account(PASSWORD, actor=actor(ayse)) is None
        marker(users, bus)
        assert len(bus.events("user.deleted")) == 1

    def test_the_address_can_be_registered_again(self, users, ayse):
        users.delete_account(PASSWORD, actor=actor(ayse))
        again = users.register(EMAIL, PASSWORD)
        assert again["user"]["id"] != ayse["user"]["id"]
        users.delete_account(PASSWORD, actor=actor(again))
        assert users.register(EMAIL, PASSWORD)

    def test_needs_the_password_and_counts_a_wrong_one(self, users, ayse):
        for _ in range(10):
            with pytest.raises(WrongPassword):
                users.delete_account(NEW, actor=actor(ayse))
        with pytest.raises(TooManyFailedLogins):
            users.delete_account(PASSWORD, actor=actor(ayse))

    def test_the_last_administrator_stays(self, users, admin):
        with pytest.raises(InvalidState, match="last active administrator"):
            users.delete_account(PASSWORD, actor=admin)

    def test_a_link_for_a_reset_is_void(self, users, bus, ayse):
        token = reset_token(users, bus, ayse)
        users.delete_account(PASSWORD, actor=actor(ayse))
        with pytest.raises(InvalidMailedToken):
            users.confirm_password_reset(token, NEW)


def test_expired_tokens_are_deleted(shared_services, users):
    [container] = shared_services(UsersService)
    session = users.register(EMAIL, PASSWORD)
    expire_tokens()
    users.request_email_verification(actor=actor(session))
    container.shared_extensions[PeriodicMethods].trigger("delete_expired_tokens")
    eventually(lambda: stored("SELECT count(*) FROM mailed_tokens") == [1])
