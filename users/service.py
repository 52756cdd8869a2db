"""Every way into users. Start it with `nameko run --config config.yml users.service`."""

from datetime import timedelta
from uuid import UUID

from contracts.base import Actor, PageRequest
from contracts.errors import ServiceUnavailable, UpstreamTimeout
from contracts.ids import parse_id
from contracts.users import (
    ChangesWithin,
    Credentials,
    InvalidCredentials,
    RefreshToken,
    TokenRevoked,
    UpdateUser,
    VerifyToken,
)
from extensions.idempotency.calls import run_once
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.security import tokens
from extensions.storage.periodic import periodic
from extensions.storage.unit_of_work import Work
from users import providers, queries, use_cases
from users.models import Base
from users.password_policy import check_password


class UsersService(operations.Operations):
    """Accounts, roles, logins and tokens."""

    name = "users"
    work = Work(Base)
    passwords = providers.Passwords()
    sessions = providers.Sessions()
    failed_logins = providers.FailedLogins()

    # Passwords are hashed with no transaction open: no connection and no lock waits for a computation.

    @rpc(transaction=False)
    def register(self, email, password, actor=None, idempotency_key=None):
        """Open a customer's account: {"user": {...}, "access_token": ..., "refresh_token": ..., ...}."""
        credentials = Credentials.parse({"email": email, "password": password})
        if idempotency_key is not None:
            return self._register_once(credentials, idempotency_key)
        check_password(credentials.password, credentials.email)
        password_hash = self.passwords.hash(credentials.password)
        with self.work.transaction() as session:
            return use_cases.register(session, credentials.email, password_hash, self.sessions, self.work.publish)

    def _register_once(self, credentials, idempotency_key):
        # Nobody is known yet who the key could belong to: it stands for one registration, whoever sends it.
        email, password = credentials.email, credentials.password
        asked = {"email": email, "password": self.passwords.fingerprint(password, email)}
        password_hash = self.passwords.hash(password)

        def open_account():
            check_password(password, email)
            account = use_cases.register(
                self.work.session, email, password_hash, self.sessions, self.work.publish, repeatable=True
            )
            return {"user_id": str(account.user.id)}

        answer = run_once(self.work, "register", idempotency_key, asked, open_account)
        # Tokens are stored nowhere: the first answer, like every other, is made from what is.
        try:
            with self.work.transaction() as session:
                account = use_cases.repeat_registration(session, UUID(answer["user_id"]), self.sessions)
        except ServiceUnavailable:  # which would say that nothing was done
            message = "The account is there, but its tokens could not be read. Send the same again, with the same key."
            raise UpstreamTimeout(message) from None
        return type(answer)(account.to_dict())

    @rpc(transaction=False)
    def login(self, email, password, address=""):
        """Start a session: {"user": {...}, "access_token": ..., "refresh_token": ..., "expires_in": seconds, ...}.

        `address` is where the client is: most failed logins are counted for one place only.
        """
        credentials = Credentials.parse({"email": email, "password": password})
        failures = self.failed_logins.of(credentials.email, str(address))
        failures.check()
        opened = None
        while opened is None:
            opened = self._log_in(credentials, failures)
        return opened

    def _log_in(self, credentials, failures):
        """Return what login answers; None where somebody else has renewed the hash in between."""
        with self.work.transaction() as session:
            user = queries.find_by_email(session, credentials.email)
        # Without an account it takes just as long.
        is_right = self.passwords.matches(credentials.password, user.password_hash if user else None)
        if user is None or not is_right:
            failures.add()
            raise InvalidCredentials
        # Once more: of many guesses at once, all but the first few have failed by now.
        failures.check()
        failures.reset()
        renewed = self.passwords.renewed(credentials.password, user.password_hash)
        with self.work.transaction() as session:
            return use_cases.log_in(session, user.id, user.password_hash, self.sessions, renewed)

    @rpc(transaction=False)
    def refresh(self, refresh_token):
        """Replace a refresh token by a new pair: the answer of login. The old one gives the same pair for 10 s more."""
        request = RefreshToken.parse({"refresh_token": refresh_token})
        with self.work.transaction() as session:
            renewed = use_cases.refresh(session, request.refresh_token, self.sessions, self.work.publish)
        if renewed is None:  # an old token was used again: the revocation is committed before anyone is told
            raise TokenRevoked
        return renewed

    @rpc
    def logout(self, refresh_token, actor=None):
        """End the session that this refresh token belongs to, at once, and its access token within the minute."""
        request = RefreshToken.parse({"refresh_token": refresh_token})
        use_cases.log_out(self.work.session, request.refresh_token, Actor.of(actor), self.work.publish)

    @rpc
    def verify(self, token):
        """Check an access token: {"valid": true, "user_id": ..., "roles": [...], "expires_at": ...}."""
        request = VerifyToken.parse({"token": token})
        return queries.describe_token(self.work.session, tokens.verify(request.token, self.sessions.public_keys))

    @rpc
    def get_user(self, user_id, actor=None):
        """Show one account; a customer sees only their own."""
        return queries.get_user(self.work.session, parse_id("user_id", user_id), Actor.of(actor))

    @rpc
    def list_users(self, limit=20, cursor=None, actor=None):
        """List accounts, newest first (admin): {"items": [...], "next_cursor": ...}."""
        Actor.of(actor).require_admin()
        return queries.list_users(self.work.session, PageRequest.parse({"limit": limit, "cursor": cursor}))

    @rpc
    def list_changed(self, seconds, until=None, actor=None):
        """List what user.updated said within the last `seconds`, for who has missed it: {"items": [...]} (admin).

        Where that is too much at once, `until` in the answer says how to go on.
        """
        Actor.of(actor).require_admin()
        wanted = ChangesWithin.parse({"seconds": seconds, "until": until})
        changes, rest = queries.list_changed(self.work.session, timedelta(seconds=wanted.seconds), wanted.until)
        items = [change.model_dump(mode="json") for change in changes]
        return {"items": items, "until": None if rest in {None, wanted.until} else rest.isoformat()}

    @rpc
    def update_user(self, user_id, actor=None, if_match=None, **changes):
        """Change the stated fields of an account at once (admin): roles, is_active.

        With `if_match`, a list of entity tags, only if the account has one of them.
        """
        Actor.of(actor).require_admin()
        return self._update(user_id, changes, if_match)

    @rpc
    def set_roles(self, user_id, roles, actor=None):
        """Give an account exactly these roles (admin), such as ["customer", "admin"]."""
        Actor.of(actor).require_admin()
        return self._update(user_id, {"roles": roles})

    @rpc
    def set_active(self, user_id, is_active, actor=None):
        """Switch an account on or off (admin); off ends its sessions."""
        Actor.of(actor).require_admin()
        return self._update(user_id, {"is_active": is_active})

    def _update(self, user_id, changes, if_match=None):
        user_id, change = parse_id("user_id", user_id), UpdateUser.parse(changes)
        return use_cases.update_user(self.work.session, user_id, change, self.work.publish, if_match)

    @periodic(seconds=3600)
    def delete_expired_sessions(self):
        """Forget logins whose time is over."""
        if use_cases.delete_expired_sessions(self.work.session) == use_cases.CLEAN_UP_ROWS:
            self.work.trigger("delete_expired_sessions")
