"""The entrypoints of the users service. Start it with `nameko run --config config.yml users.service`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast, final
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json, Page, PageRequest
from contracts.errors import IdempotencyKeyReused, ServiceUnavailable, UpstreamTimeout
from contracts.ids import parse_id
from contracts.users import (
    AlreadyCompleted,
    ChangePassword,
    Changes,
    ChangesWithin,
    ConfirmPasswordReset,
    Credentials,
    DeleteAccount,
    InvalidCredentials,
    Language,
    LoginView,
    RefreshToken,
    Registration,
    RequestPasswordReset,
    Role,
    SessionView,
    TokenRevoked,
    UpdateProfile,
    UpdateUser,
    UserInactive,
    UserNotFound,
    UsersRpc,
    UserView,
    VerifiedToken,
    VerifyEmail,
    VerifyToken,
    WrongPassword,
)
from extensions.idempotency.calls import run_once
from extensions.idempotency.stored_results import has_stored_result
from extensions.observability.traces import current_trace
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.security import access_tokens
from extensions.storage.periodic import periodic
from extensions.storage.retention import delete_in_batches
from extensions.storage.sweeps import Sweep, SweepProvider
from extensions.storage.unit_of_work import UnitOfWork, Work
from users import mailed_tokens, own_account, providers, queries, token_issuer, use_cases
from users.models import Base, User
from users.password_policy import check_password


@final
class UsersService(operations.Operations, UsersRpc):
    """Accounts, roles, logins and tokens."""

    name = "users"
    work: UnitOfWork = Work(Base)
    passwords = providers.Passwords()
    sessions: use_cases.SessionPolicy = providers.Sessions()
    failed_logins = providers.FailedLogins()
    expired: Sweep = SweepProvider("deleting expired sessions")
    resets: Sweep = SweepProvider("sending password resets")

    # Passwords are hashed with no transaction open: no connection and no lock waits for a computation.

    @rpc(transaction=False)
    def register(
        self,
        registration: Registration,
        address: str = "",
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
    ) -> Json[SessionView]:
        if idempotency_key is not None:
            return self._register_once(registration, str(address), idempotency_key)
        email, language = registration.email, registration.language
        check_password(registration.password, email)
        password_hash = self.passwords.hash(registration.password)
        with self.work.transaction() as session:
            publish = self.work.publish
            account = use_cases.register(session, email, password_hash, self.sessions, publish, language=language)
        return account.to_dict()

    def _register_once(self, registration: Registration, address: str, idempotency_key: str) -> Json[SessionView]:
        # The key belongs to the registration, because there is no user yet.
        email, password, language = registration.email, registration.password, registration.language
        # Whoever knows the key learns from a repetition whether the password is the same, as from a login.
        failures = self.failed_logins.of(email, address)
        is_repetition = has_stored_result(self.work, "register", idempotency_key, OPERATOR)
        if is_repetition:
            failures.check()
        fingerprint = self.passwords.fingerprint(password, email)
        asked = {"email": email, "password": fingerprint}
        if "language" in registration.model_fields_set:  # earlier versions stored results of requests without it
            asked["language"] = language.value
        password_hash = self.passwords.hash(password)
        known_to_client = f"{idempotency_key}\n{fingerprint}"

        def open_account() -> dict[str, str]:
            check_password(password, email)
            salt = token_issuer.new_salt()
            refresh_token = token_issuer.first_refresh_token(salt, known_to_client)
            policy = self.sessions
            use_cases.register(
                self.work.session,
                email,
                password_hash,
                policy,
                self.work.publish,
                language=language,
                refresh_token=refresh_token,
            )
            return {"salt": salt.hex(), "kid": policy.key.kid}

        try:
            stored = run_once(self.work, "register", idempotency_key, asked, open_account)
        except IdempotencyKeyReused:
            failures.add()
            raise
        if is_repetition:
            failures.check()  # again: concurrent guesses may have reached the limit in the meantime
        account = self._first_session(stored, known_to_client, language)
        return cast("Json[SessionView]", type(stored)(account.to_dict()))  # Replayed if `stored` is Replayed

    def _first_session(self, stored: dict[str, str], known_to_client: str, language: Language) -> SessionView:
        """Return the session of a stored registration.

        Tokens are never stored: the first result and each repeated one are computed from what is.
        """
        if "salt" not in stored:  # stored by version 0.1
            raise AlreadyCompleted
        refresh_token = token_issuer.first_refresh_token(bytes.fromhex(stored["salt"]), known_to_client)
        try:
            with self.work.transaction() as session:
                return use_cases.repeat_registration(session, refresh_token, stored["kid"], self.sessions, language)
        except ServiceUnavailable:  # this error would mean that nothing was done, but the account is stored
            message = "The account is there, but its tokens could not be read. Send the same again, with the same key."
            raise UpstreamTimeout(message) from None

    @rpc(transaction=False)
    def login(self, credentials: Credentials, address: str = "") -> Json[SessionView]:
        failures = self.failed_logins.of(credentials.email, str(address))
        failures.check()
        opened = None
        while opened is None:
            opened = self._log_in(credentials, failures)
        return opened.to_dict()

    def _log_in(self, credentials: Credentials, failures: providers.Failures) -> SessionView | None:
        """Return the new session; None where the hash was renewed by another login in the meantime."""
        with self.work.transaction() as session:
            user = queries.find_by_email(session, credentials.email)
        user = self._require_password(user, credentials.password, failures, InvalidCredentials)
        renewed = self.passwords.renewed(credentials.password, user.password_hash)
        with self.work.transaction() as session:
            return use_cases.log_in(session, user.id, user.password_hash, self.sessions, renewed)

    def _require_password(
        self, user: User | None, password: str, failures: providers.Failures, wrong: type[InvalidCredentials]
    ) -> User:
        """Return `user` if this is the password; else count a failed login and raise `wrong`."""
        # Takes the same time if there is no account.
        is_right = self.passwords.matches(password, user.password_hash if user else None)
        if user is None or not is_right:
            failures.add()
            raise wrong
        # Check again: concurrent logins may have reached the limit in the meantime.
        failures.check()
        failures.reset()
        return user

    @rpc(transaction=False)
    def refresh(self, token: RefreshToken) -> Json[SessionView]:
        with self.work.transaction() as session:
            renewed = use_cases.refresh(session, token.refresh_token, self.sessions, self.work.publish)
        if renewed is None:  # an old token was used again: commit the revocation before the caller learns of it
            raise TokenRevoked
        return renewed.to_dict()

    @rpc
    def logout(self, token: RefreshToken, *, actor: Actor = OPERATOR) -> None:
        use_cases.log_out(self.work.session, token.refresh_token, actor, self.work.publish)

    @rpc
    def verify(self, token: VerifyToken) -> Json[VerifiedToken]:
        verified = access_tokens.verify(token.token, self.sessions.public_keys)
        return queries.describe_token(self.work.session, verified).to_dict()

    @rpc
    def get_user(self, user_id: UUID, *, actor: Actor = OPERATOR) -> Json[UserView]:
        return queries.get_user(self.work.session, user_id, actor).to_dict()

    @rpc(admin=True)
    def list_users(self, page: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[UserView]]:
        return queries.list_users(self.work.session, page)

    @rpc(admin=True)
    def list_changed(self, wanted: ChangesWithin, *, actor: Actor = OPERATOR) -> Changes:
        changes, rest = queries.list_changed(self.work.session, timedelta(seconds=wanted.seconds), wanted.until)
        items = [change.model_dump(mode="json") for change in changes]
        return {"items": items, "until": None if rest is None or rest == wanted.until else rest.isoformat()}

    @rpc(admin=True)
    def update_user(
        self,
        user_id: UUID,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
        changes: UpdateUser,
    ) -> Json[UserView]:
        return use_cases.update_user(self.work.session, user_id, changes, self.work.publish, if_match).to_dict()

    # The user's own account

    @rpc(transaction=False)
    def change_password(
        self,
        change: ChangePassword,
        address: str = "",
        session_id: str = "",
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> None:
        kept = parse_id("session_id", session_id) if session_id else None
        is_changed = False
        while not is_changed:  # again if another login has renewed the hash in the meantime
            user = self._prove(actor, change.current_password, address)
            if not user.is_active:
                raise UserInactive
            check_password(change.new_password, user.email)
            new_hash = self.passwords.hash(change.new_password)
            with self.work.transaction() as session:
                is_changed = own_account.change_password(
                    session,
                    user.id,
                    user.password_hash,
                    new_hash,
                    self.work.publish,
                    kept=kept,
                    if_match=if_match,
                )

    def _prove(self, actor: Actor, password: str, address: str) -> User:
        """Return the actor's account if this is its password. A wrong one counts as a failed login."""
        with self.work.transaction() as session:
            user = queries.find_own(session, actor)
        if user.deleted_at is not None:
            raise UserNotFound
        failures = self.failed_logins.of(user.email, str(address))
        failures.check()
        return self._require_password(user, password, failures, WrongPassword)

    @rpc
    def request_password_reset(self, request: RequestPasswordReset) -> None:
        own_account.store_reset_request(self.work.session, request.email, current_trace())
        self.work.trigger(self.send_password_resets)

    @periodic(seconds=5, transaction=False)
    def send_password_resets(self) -> None:
        """Publish the tokens of password resets that were asked for. One that fails delays no other."""
        self.resets.run(self.work, own_account.lock_reset_requests, self._send_resets)

    def _send_resets(self, session: Session, asked: Sequence[Any]) -> None:
        own_account.handle_reset_requests(session, asked, self.work.publish)
        if len(asked) == own_account.RESET_BATCH:  # there may be more
            self.work.trigger(self.send_password_resets)

    @rpc(transaction=False)
    def confirm_password_reset(self, reset: ConfirmPasswordReset, address: str = "") -> None:
        with self.work.transaction() as session:
            user = own_account.account_to_reset(session, reset.token)
        check_password(reset.new_password, user.email)
        new_hash = self.passwords.hash(reset.new_password)
        with self.work.transaction() as session:
            own_account.reset_password(session, user.id, reset.token, new_hash, self.work.publish)
        self.failed_logins.of(user.email, str(address)).reset()

    @rpc
    def request_email_verification(self, *, actor: Actor = OPERATOR) -> None:
        user = queries.find_own(self.work.session, actor)
        own_account.request_verification(self.work.session, user.id, self.work.publish)

    @rpc
    def verify_email(self, verification: VerifyEmail) -> None:
        own_account.verify_email(self.work.session, verification.token)

    @rpc
    def update_profile(
        self, *, actor: Actor = OPERATOR, if_match: Sequence[str] | None = None, changes: UpdateProfile
    ) -> Json[UserView]:
        user = queries.find_own(self.work.session, actor)
        return own_account.update_profile(self.work.session, user.id, changes, self.work.publish, if_match).to_dict()

    @rpc
    def list_sessions(self, user_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[LoginView]]:
        return queries.list_sessions(self.work.session, user_id, page, actor)

    @rpc(transaction=False)
    def delete_account(self, deletion: DeleteAccount, address: str = "", *, actor: Actor = OPERATOR) -> None:
        is_deleted = False
        while not is_deleted:  # as in change_password
            with self.work.transaction() as session:
                user = queries.find_own(session, actor)
            if user.deleted_at is not None:
                return
            user = self._prove(actor, deletion.password, address)
            with self.work.transaction() as session:
                is_deleted = own_account.delete_account(session, user.id, user.password_hash, self.work.publish)

    @rpc(admin=True)
    def set_roles(self, user_id: UUID, roles: Sequence[Role], *, actor: Actor = OPERATOR) -> Json[UserView]:
        return self._update(user_id, UpdateUser.parse({"roles": roles}))

    @rpc(admin=True)
    def set_active(self, user_id: UUID, is_active: bool, *, actor: Actor = OPERATOR) -> Json[UserView]:
        return self._update(user_id, UpdateUser.parse({"is_active": is_active}))

    def _update(self, user_id: UUID, changes: UpdateUser) -> Json[UserView]:
        return use_cases.update_user(self.work.session, user_id, changes, self.work.publish).to_dict()

    @periodic(seconds=3600, transaction=False)
    def delete_expired_sessions(self) -> None:
        """Delete sessions that have expired. One that cannot be deleted delays no other."""
        self.expired.run(self.work, use_cases.lock_expired_sessions, self._delete_sessions)

    def _delete_sessions(self, session: Session, expired: Sequence[Any]) -> None:
        use_cases.delete_expired_sessions(session, expired)
        if len(expired) == use_cases.CLEAN_UP_ROWS:  # there may be more
            self.work.trigger(self.delete_expired_sessions)

    @periodic(seconds=300, transaction=False)
    def delete_expired_tokens(self) -> None:
        """Delete tokens of mails that have expired."""
        statement = mailed_tokens.delete_expired(use_cases.CLEAN_UP_ROWS)
        for _deleted in delete_in_batches(self.work, statement, use_cases.CLEAN_UP_ROWS):
            pass
