"""The entrypoints of the users service. Start it with `nameko run --config config.yml users.service`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast, final
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json, Page, PageRequest
from contracts.errors import IdempotencyKeyReused, ServiceUnavailable, UpstreamTimeout
from contracts.users import (
    AlreadyCompleted,
    Changes,
    ChangesWithin,
    Credentials,
    InvalidCredentials,
    RefreshToken,
    Role,
    SessionView,
    TokenRevoked,
    UpdateUser,
    UsersRpc,
    UserView,
    VerifiedToken,
    VerifyToken,
)
from extensions.idempotency.calls import run_once
from extensions.idempotency.stored_results import has_stored_result
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.security import access_tokens
from extensions.storage.periodic import periodic
from extensions.storage.sweeps import Sweep, SweepProvider
from extensions.storage.unit_of_work import UnitOfWork, Work
from users import providers, queries, token_issuer, use_cases
from users.models import Base
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

    # Passwords are hashed with no transaction open: no connection and no lock waits for a computation.

    @rpc(transaction=False)
    def register(
        self,
        credentials: Credentials,
        address: str = "",
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
    ) -> Json[SessionView]:
        if idempotency_key is not None:
            return self._register_once(credentials, str(address), idempotency_key)
        check_password(credentials.password, credentials.email)
        password_hash = self.passwords.hash(credentials.password)
        with self.work.transaction() as session:
            account = use_cases.register(session, credentials.email, password_hash, self.sessions, self.work.publish)
        return account.to_dict()

    def _register_once(self, credentials: Credentials, address: str, idempotency_key: str) -> Json[SessionView]:
        # The key belongs to the registration, because there is no user yet.
        email, password = credentials.email, credentials.password
        # Whoever knows the key learns from a repetition whether the password is the same, as from a login.
        failures = self.failed_logins.of(email, address)
        is_repetition = has_stored_result(self.work, "register", idempotency_key, OPERATOR)
        if is_repetition:
            failures.check()
        fingerprint = self.passwords.fingerprint(password, email)
        asked = {"email": email, "password": fingerprint}
        password_hash = self.passwords.hash(password)
        known_to_client = f"{idempotency_key}\n{fingerprint}"

        def open_account() -> dict[str, str]:
            check_password(password, email)
            salt = token_issuer.new_salt()
            refresh_token = token_issuer.first_refresh_token(salt, known_to_client)
            policy = self.sessions
            use_cases.register(
                self.work.session, email, password_hash, policy, self.work.publish, refresh_token=refresh_token
            )
            return {"salt": salt.hex(), "kid": policy.key.kid}

        try:
            stored = run_once(self.work, "register", idempotency_key, asked, open_account)
        except IdempotencyKeyReused:
            failures.add()
            raise
        if is_repetition:
            failures.check()  # again: concurrent guesses may have reached the limit in the meantime
        account = self._first_session(stored, known_to_client)
        return cast("Json[SessionView]", type(stored)(account.to_dict()))  # Replayed if `stored` is Replayed

    def _first_session(self, stored: dict[str, str], known_to_client: str) -> SessionView:
        """Return the session of a stored registration.

        Tokens are never stored: the first result and each repeated one are computed from what is.
        """
        if "salt" not in stored:  # stored by version 0.1
            raise AlreadyCompleted
        refresh_token = token_issuer.first_refresh_token(bytes.fromhex(stored["salt"]), known_to_client)
        try:
            with self.work.transaction() as session:
                return use_cases.repeat_registration(session, refresh_token, stored["kid"], self.sessions)
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
        # Takes the same time if there is no account.
        is_right = self.passwords.matches(credentials.password, user.password_hash if user else None)
        if user is None or not is_right:
            failures.add()
            raise InvalidCredentials
        # Check again: concurrent logins may have reached the limit in the meantime.
        failures.check()
        failures.reset()
        renewed = self.passwords.renewed(credentials.password, user.password_hash)
        with self.work.transaction() as session:
            return use_cases.log_in(session, user.id, user.password_hash, self.sessions, renewed)

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
