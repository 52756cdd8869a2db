"""Every way into users. Start it with `nameko run --config config.yml users.service`."""

from datetime import timedelta

from contracts.base import Actor, PageRequest
from contracts.errors import IdempotencyKeyReused
from contracts.users import (
    ChangesWithin,
    Credentials,
    InvalidCredentials,
    RefreshToken,
    TokenRevoked,
    UpdateUser,
    UserAlreadyExists,
    VerifyToken,
)
from extensions import operations, tokens
from extensions.ids import parse_id
from extensions.periodic import periodic
from extensions.rpc import rpc
from extensions.work import Work
from users import providers, queries, use_cases
from users.models import Base
from users.password_policy import check_password


class UsersService(operations.Operations):
    """Accounts, roles, logins and tokens."""

    name = "users"
    work = Work(Base)
    passwords = providers.Passwords()
    sessions = providers.Sessions()

    # Passwords are hashed with no transaction open: no connection and no lock waits for a computation.

    @rpc(transaction=False)
    def register(self, email, password, actor=None, idempotency_key=None):
        """Open a customer's account: {"user": {...}, "access_token": ..., "refresh_token": ..., ...}."""
        credentials = Credentials.parse({"email": email, "password": password})
        check_password(credentials.password, credentials.email)
        password_hash = self.passwords.hash(credentials.password)
        try:
            with self.work.transaction() as session:
                return use_cases.register(
                    session, credentials.email, password_hash, self.sessions, self.work.publish, idempotency_key
                )
        except UserAlreadyExists:
            if idempotency_key is None:
                raise
            return self._register_again(credentials, idempotency_key)

    def _register_again(self, credentials, idempotency_key):
        # Keys are scoped to the address. Comparing whole requests would mean to store a fast hash of the password.
        with self.work.transaction() as session:
            user = queries.find_registration(session, credentials.email, idempotency_key)
        if user is None:
            raise UserAlreadyExists
        if not self.passwords.matches(credentials.password, user.password_hash):
            raise IdempotencyKeyReused
        with self.work.transaction() as session:
            return use_cases.repeat_registration(session, user.id, self.sessions)

    @rpc(transaction=False)
    def login(self, email, password):
        """Start a session: {"user": {...}, "access_token": ..., "refresh_token": ..., "expires_in": seconds, ...}."""
        credentials = Credentials.parse({"email": email, "password": password})
        with self.work.transaction() as session:
            user = queries.find_by_email(session, credentials.email)
        # Without an account it takes just as long.
        is_right = self.passwords.matches(credentials.password, user.password_hash if user else None)
        if user is None or not is_right:
            raise InvalidCredentials
        with self.work.transaction() as session:
            return use_cases.log_in(session, user.id, user.password_hash, self.sessions)

    @rpc(transaction=False)
    def refresh(self, refresh_token):
        """Replace a refresh token by a new pair: the answer of login. The old one gives the same pair for 10 s more."""
        request = RefreshToken.parse({"refresh_token": refresh_token})
        with self.work.transaction() as session:
            renewed = use_cases.refresh(session, request.refresh_token, self.sessions)
        if renewed is None:  # an old token was used again: the revocation is committed before anyone is told
            raise TokenRevoked
        return renewed

    @rpc
    def logout(self, refresh_token, actor=None):
        """End the session that this refresh token belongs to."""
        request = RefreshToken.parse({"refresh_token": refresh_token})
        use_cases.log_out(self.work.session, request.refresh_token, Actor.of(actor))

    @rpc
    def verify(self, token):
        """Check an access token: {"valid": true, "user_id": ..., "roles": [...], "expires_at": ...}."""
        request = VerifyToken.parse({"token": token})
        return queries.describe_token(self.work.session, tokens.verify(request.token, self.sessions.key.public))

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
    def list_changed(self, seconds, actor=None):
        """List what user.updated said within the last `seconds`, for who has missed it: {"items": [...]} (admin)."""
        Actor.of(actor).require_admin()
        within = ChangesWithin.parse({"seconds": seconds}).seconds
        changes = queries.list_changed(self.work.session, timedelta(seconds=within))
        return {"items": [change.model_dump(mode="json") for change in changes]}

    @rpc
    def set_roles(self, user_id, roles, actor=None):
        """Give an account exactly these roles (admin), such as ["customer", "admin"]."""
        Actor.of(actor).require_admin()
        request = UpdateUser.parse({"roles": roles})
        return use_cases.set_roles(self.work.session, parse_id("user_id", user_id), request.roles, self.work.publish)

    @rpc
    def set_active(self, user_id, is_active, actor=None):
        """Switch an account on or off (admin); off ends its sessions."""
        Actor.of(actor).require_admin()
        request = UpdateUser.parse({"is_active": is_active})
        return use_cases.set_active(
            self.work.session, parse_id("user_id", user_id), request.is_active, self.work.publish
        )

    @periodic(seconds=3600)
    def delete_expired_sessions(self):
        """Forget logins whose time is over."""
        if use_cases.delete_expired_sessions(self.work.session) == use_cases.CLEAN_UP_ROWS:
            self.work.wake("delete_expired_sessions")
