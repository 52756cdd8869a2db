"""/session: the session of a browser, whose refresh token is in a cookie that no script can read."""

from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from nameko import config

from contracts.errors import PermissionDenied, PreconditionFailed
from contracts.services import Services
from contracts.users import (
    BrowserSession,
    BrowserState,
    DemoAccount,
    InvalidToken,
    NotSignedIn,
    RefreshToken,
    Role,
    TokenRevoked,
    UserInactive,
)
from extensions.http.message.request import Access, HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.route import route
from extensions.runtime.parsed_settings import is_production
from gateway.console import supervisor_url

PATH = "/session"
COOKIE = "order_suite_session"
SECONDS_OF_A_DAY = 24 * 3600
MAX_TOKEN = 4096  # as in RefreshToken
# The accounts of deploy/seed.py, which never runs in production.
DEMO_PASSWORD = "Demo-pass-2026!"
DEMO_ACCOUNTS = (
    DemoAccount(email="demo@example.com", password=DEMO_PASSWORD, role=Role.CUSTOMER),
    DemoAccount(email="admin@example.com", password=DEMO_PASSWORD, role=Role.ADMIN),
)


class ForeignPage(PermissionDenied):
    """A page of another origin sent the request."""

    detail = "Only pages of this gateway may use the session of the browser."


class Routes:
    """The routes of the browser's session."""

    services: Services

    @route("GET", PATH, access=Access.ANYONE, response=BrowserState)
    def get_browser_state(self, request: HttpRequest) -> Response:
        """Tell a page whether the browser has a session, and which demo accounts there are."""
        in_production = is_production(config)
        demo_accounts = () if in_production else DEMO_ACCOUNTS
        state = BrowserState(
            is_signed_in=bool(_token_of(request)),
            in_production=in_production,
            demo_accounts=demo_accounts,
            supervisor_url=supervisor_url(),
        )
        return Response(state.to_dict(), headers={"Cache-Control": "no-store"})

    @route(
        "PUT",
        PATH,
        access=Access.ANYONE,
        service="users",
        body=RefreshToken,
        status=204,
        errors=(InvalidToken, TokenRevoked, UserInactive, ForeignPage),
    )
    def put_session(self, request: HttpRequest[RefreshToken]) -> Response:
        """Keep the session of a refresh token in the browser, as a cookie.

        The cookie holds the successor of that token, so what the page has seen is of no use ten seconds later.
        """
        _require_own_page(request)
        if request.precondition:  # a cookie has no ETag
            raise PreconditionFailed
        session = self.services.users.refresh(request.body)
        return Response(status=204, headers=_cookie(session["refresh_token"]))

    @route(
        "POST",
        PATH,
        access=Access.ANYONE,
        service="users",
        response=BrowserSession,
        errors=(InvalidToken, TokenRevoked, UserInactive, ForeignPage),
    )
    def refresh_session(self, request: HttpRequest) -> Response:
        """Exchange the cookie for a new access token, and replace the cookie.

        Tabs that do this at the same time get the same pair, as with POST /users/refresh-token.
        """
        _require_own_page(request)
        token = _token_of(request)
        if not token:
            raise NotSignedIn
        session = self.services.users.refresh(RefreshToken.parse({"refresh_token": token}))
        shown = {name: session[name] for name in BrowserSession.model_fields}
        return Response(shown, headers=_cookie(session["refresh_token"]))

    @route("DELETE", PATH, access=Access.ANYONE, service="users", status=204, errors=(ForeignPage,))
    def delete_session(self, request: HttpRequest) -> Response:
        """End the session of the browser, if it has one, and delete the cookie."""
        _require_own_page(request)
        token = _token_of(request)
        if token:
            try:
                self.services.users.logout(RefreshToken.parse({"refresh_token": token}))
            except InvalidToken:
                pass  # it is over already, and the cookie goes
        return Response(status=204, headers=_cookie("", seconds=0))


def _require_own_page(request: HttpRequest) -> None:
    """Raise ForeignPage for a request that a browser sends for a page of another origin (CSRF).

    The cookie is SameSite=Strict, but another port of the same host is the same site. Browsers always send one of these
    headers; programs that send neither have no cookies of others.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site != "same-origin":
            raise ForeignPage
        return
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise ForeignPage


def _token_of(request: HttpRequest) -> str:
    """Return the refresh token of the cookie, empty without one."""
    try:
        cookies = SimpleCookie(request.headers.get("cookie", ""))
    except CookieError:
        return ""
    value = cookies[COOKIE].value if COOKIE in cookies else ""
    return value if len(value) <= MAX_TOKEN else ""


def _cookie(value: str, seconds: int | None = None) -> dict[str, str]:
    """Return the headers of a response that sets the cookie for as long as a refresh token is valid."""
    if seconds is None:
        seconds = int(float(config.get("REFRESH_TOKEN_DAYS", 30)) * SECONDS_OF_A_DAY)
    parts = [f"{COOKIE}={value}", f"Path={PATH}", f"Max-Age={seconds}", "HttpOnly", "SameSite=Strict"]
    if is_production(config):
        parts.append("Secure")
    return {"Set-Cookie": "; ".join(parts), "Cache-Control": "no-store"}
