"""/users: accounts and sessions."""

from typing import Any

from contracts.base import PageRequest
from contracts.errors import ValidationFailed
from contracts.users import Credentials, RefreshToken, SessionView, UpdateUser, UserView, VerifiedToken, VerifyToken
from extensions.http.entrypoint import Answer, route
from extensions.http.request import Access, HttpRequest


class Routes:
    """What users offers."""

    services: Any
    tokens: Any

    @route(
        "POST",
        "/users/register",
        access=Access.ANYONE,
        body=Credentials,
        answer=SessionView,
        status=201,
        idempotent=True,
    )
    def register(self, request: HttpRequest) -> Any:
        """Open a customer's account, and log in."""
        return _secret(self.services.users.register(**request.body, idempotency_key=request.idempotency_key))

    @route("POST", "/users/login", access=Access.ANYONE, body=Credentials, answer=SessionView)
    def login(self, request: HttpRequest) -> Any:
        """Exchange e-mail address and password for tokens."""
        return _secret(self.services.users.login(**request.body))

    @route("POST", "/users/refresh-token", access=Access.ANYONE, body=RefreshToken, answer=SessionView)
    def refresh_token(self, request: HttpRequest) -> Any:
        """Exchange a refresh token for a new pair."""
        return _secret(self.services.users.refresh(**request.body))

    @route("POST", "/users/logout", access=Access.USER, body=RefreshToken, status=204)
    def logout(self, request: HttpRequest) -> None:
        """End the session that a refresh token belongs to."""
        self.services.users.logout(**request.body, actor=request.actor)

    @route("POST", "/users/verify-token", access=Access.ANYONE, body=VerifyToken, answer=VerifiedToken)
    def verify_token(self, request: HttpRequest) -> Any:
        """Say what an access token stands for."""
        return self.services.users.verify(**request.body)

    @route("GET", "/users/me", aliases=("/users/user-profile",), access=Access.USER, answer=UserView)
    def get_profile(self, request: HttpRequest) -> Any:
        """Show the caller's own account."""
        return self.services.users.get_user(user_id=request.actor["user_id"], actor=request.actor)

    @route("GET", "/users", access=Access.ADMIN, query=PageRequest, answer=UserView)
    def list_users(self, request: HttpRequest) -> Any:
        """List accounts, newest first."""
        return self.services.users.list_users(**request.query, actor=request.actor)

    @route("PATCH", "/users/{user_id}", access=Access.ADMIN, body=UpdateUser, answer=UserView)
    def update_user(self, request: HttpRequest, user_id: str) -> Any:
        """Change an account's roles, or switch it on or off."""
        change, user = request.body, None
        if not change:
            raise ValidationFailed.field("", "state roles, is_active or both")
        if "roles" in change:
            user = self.services.users.set_roles(user_id=user_id, roles=change["roles"], actor=request.actor)
        if "is_active" in change:
            user = self.services.users.set_active(user_id=user_id, is_active=change["is_active"], actor=request.actor)
        return user

    @route("GET", "/.well-known/jwks.json", access=Access.ANYONE)
    def get_jwks(self, _request: HttpRequest) -> Any:
        """Publish the keys that verify access tokens."""
        return Answer(self.tokens.jwks(), headers={"Cache-Control": "public, max-age=300"})


def _secret(session: dict[str, Any]) -> Answer:
    """Tokens are for the one who asked, and for no cache."""
    return Answer(session, headers={"Cache-Control": "no-store"})
