"""/users: accounts and sessions."""

from uuid import UUID

from contracts.base import Json, Page, PageRequest
from contracts.errors import InvalidState
from contracts.services import Services
from contracts.users import (
    AlreadyCompleted,
    Credentials,
    InvalidCredentials,
    InvalidToken,
    KeySet,
    RefreshToken,
    Registration,
    SessionView,
    TokenRevoked,
    UpdateUser,
    UserAlreadyExists,
    UserInactive,
    UserNotFound,
    UserView,
    VerifiedToken,
    VerifyToken,
    WeakPassword,
)
from extensions.http.message.request import Access, HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.authentication import AccessTokens
from extensions.http.routing.route import route


class Routes:
    """The routes of users."""

    services: Services
    tokens: AccessTokens

    @route(
        "POST",
        "/users/register",
        access=Access.ANYONE,
        service="users",
        body=Registration,
        response=SessionView,
        status=201,
        errors=(UserAlreadyExists, AlreadyCompleted, WeakPassword),
        idempotent=True,
        compute_heavy=True,
        rate_limit="register",
    )
    def register(self, request: HttpRequest[Registration]) -> Response:
        """Open a customer's account, and log in."""
        return _secret(
            self.services.users.register(request.body, address=request.address, idempotency_key=request.idempotency_key)
        )

    @route(
        "POST",
        "/users/login",
        access=Access.ANYONE,
        service="users",
        body=Credentials,
        response=SessionView,
        errors=(InvalidCredentials, UserInactive),
        compute_heavy=True,
        rate_limit="login",
    )
    def login(self, request: HttpRequest[Credentials]) -> Response:
        """Exchange e-mail address and password for tokens."""
        return _secret(self.services.users.login(request.body, address=request.address))

    @route(
        "POST",
        "/users/refresh-token",
        access=Access.ANYONE,
        service="users",
        body=RefreshToken,
        response=SessionView,
        errors=(InvalidToken, TokenRevoked, UserInactive),
    )
    def refresh_token(self, request: HttpRequest[RefreshToken]) -> Response:
        """Exchange a refresh token for a new pair."""
        return _secret(self.services.users.refresh(request.body))

    @route(
        "POST",
        "/users/logout",
        access=Access.ANYONE,
        service="users",
        body=RefreshToken,
        status=204,
        errors=(InvalidToken,),
    )
    def logout(self, request: HttpRequest[RefreshToken]) -> None:
        """End the session that a refresh token belongs to. No access token is needed: it may have expired already."""
        self.services.users.logout(request.body)

    @route(
        "POST",
        "/users/verify-token",
        access=Access.ANYONE,
        service="users",
        body=VerifyToken,
        response=VerifiedToken,
        errors=(InvalidToken, TokenRevoked),
    )
    def verify_token(self, request: HttpRequest[VerifyToken]) -> Json[VerifiedToken]:
        """Check an access token, and show whose it is."""
        return self.services.users.verify(request.body)

    @route(
        "GET",
        "/users/me",
        aliases=("/users/user-profile",),
        access=Access.USER,
        service="users",
        response=UserView,
        errors=(UserNotFound,),
    )
    def get_profile(self, request: HttpRequest) -> Json[UserView]:
        """Show the caller's own account."""
        return self.services.users.get_user(request.user_id, actor=request.actor)

    @route("GET", "/users", access=Access.ADMIN, service="users", query=PageRequest, response=UserView)
    def list_users(self, request: HttpRequest[None, PageRequest]) -> Json[Page[UserView]]:
        """List accounts, newest first."""
        return self.services.users.list_users(request.query, actor=request.actor)

    @route(
        "GET",
        "/users/{user_id}",
        access=Access.ADMIN,
        service="users",
        response=UserView,
        errors=(UserNotFound,),
    )
    def get_user(self, request: HttpRequest, user_id: UUID) -> Json[UserView]:
        """Show one account."""
        return self.services.users.get_user(user_id, actor=request.actor)

    @route(
        "PATCH",
        "/users/{user_id}",
        access=Access.ADMIN,
        service="users",
        body=UpdateUser,
        response=UserView,
        errors=(UserNotFound, InvalidState),
    )
    def update_user(self, request: HttpRequest[UpdateUser], user_id: UUID) -> Json[UserView]:
        """Change an account's roles, or switch it on or off."""
        return self.services.users.update_user(
            user_id, changes=request.body, **request.precondition, actor=request.actor
        )

    @route("GET", "/.well-known/jwks.json", access=Access.ANYONE, response=KeySet)
    def get_jwks(self, _request: HttpRequest) -> Response:
        """Publish the keys that verify access tokens."""
        return Response(self.tokens.jwks(), headers={"Cache-Control": "public, max-age=300"})


def _secret(session: Json[SessionView]) -> Response:
    """Return tokens in a response that no cache stores."""
    return Response(session, headers={"Cache-Control": "no-store"})
