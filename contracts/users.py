"""The contract of the users service: its events, requests, views, RPC interface and errors."""

import re
import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypedDict
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StringConstraints

from contracts.base import (
    ABSENT,
    OPERATOR,
    WHOLE,
    Actor,
    Event,
    Instant,
    Json,
    Page,
    PageRequest,
    Request,
    View,
    at_most,
)
from contracts.errors import NotFound, RateLimited, ServiceError
from contracts.operations import OperatedRpc
from contracts.text import Text

ACCESS_TOKEN_ISSUER = "order-suite"
ACCESS_TOKEN_AUDIENCE = "order-suite-api"
ACCESS_TOKEN_ALGORITHM = "EdDSA"
ACCESS_TOKEN_TYPE = "at+jwt"
ACCESS_TOKEN_SECONDS = 15 * 60
MIN_PASSWORD, MAX_PASSWORD = 8, 128
PASSWORD_RESET_LIFETIME = timedelta(minutes=30)
EMAIL_VERIFICATION_LIFETIME = timedelta(hours=24)
"""How long the token of a mail can be used."""


class Role(StrEnum):
    """What a user may do: every user is a customer, an admin manages the shop."""

    CUSTOMER = "customer"
    ADMIN = "admin"


class Language(StrEnum):
    """The language of the mails to a user."""

    ENGLISH = "en"
    TURKISH = "tr"


# The addresses of RFC 5321 without quotes and with a dot in the domain: no invisible characters, and no letters that
# look like others.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"{_ATOM}(\.{_ATOM})*@({_LABEL}\.)+[A-Za-z0-9][A-Za-z0-9-]{{0,61}}[A-Za-z0-9]")
_MAX_LOCAL_PART = 64


def _address(value: str) -> str:
    # Checked before it is changed to lower case: some other letters have an ASCII letter as their lower case.
    if _EMAIL.fullmatch(value) and value.index("@") <= _MAX_LOCAL_PART:
        return value.lower()
    message = "must be an e-mail address, such as name@example.com"
    raise ValueError(message)


Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=254),
    AfterValidator(_address),
    Field(json_schema_extra={"format": "email", "pattern": f"^{_EMAIL.pattern}$"}),
]
"""Without surrounding blanks and in lower case, so that one mailbox is one account."""


def _one_spelling(value: str) -> str:
    spelling = unicodedata.normalize("NFKC", value)
    if len(spelling) <= MAX_PASSWORD:
        return spelling
    message = f"must have at most {MAX_PASSWORD} characters, of which a ligature counts as several"
    raise ValueError(message)


Password = Annotated[Text, Field(min_length=1, max_length=MAX_PASSWORD), AfterValidator(_one_spelling)]
"""In one spelling (NFKC): keyboards differ in how they compose an accent. No control characters, NUL among them."""

Token = Annotated[str, Field(min_length=1, max_length=4096)]
MailedToken = Annotated[str, Field(min_length=1, max_length=128)]
"""A one-time token of a mail."""

# Events


class UserRegistered(Event):
    """A new account was registered."""

    event_type: ClassVar[str] = "user.registered"
    producer: ClassVar[str] = "users"
    consumers: ClassVar[tuple[str, ...]] = ("notifications",)
    private_fields: ClassVar[tuple[str, ...]] = ("email",)

    user_id: UUID
    email: str
    language: Language = Language.ENGLISH
    """Of the mails to the user. Absent in events of version 0.1."""


class UserUpdated(Event):
    """An account changed: its roles, its language, whether it is active. Or some of its sessions ended.

    Holds for access tokens issued before `at`. Of two events about one account, the later `at` holds.
    """

    event_type: ClassVar[str] = "user.updated"
    producer: ClassVar[str] = "users"
    consumers: ClassVar[tuple[str, ...]] = ("notifications",)
    # Not `consumers`: each process of the gateway has its own queue while it runs.
    listeners: ClassVar[tuple[str, ...]] = ("gateway",)

    user_id: UUID
    roles: tuple[Role, ...]
    is_active: bool
    at: Instant
    ended_sessions: tuple[UUID, ...] = ()
    """Sessions that were logged out or revoked, by the `sid` of their access tokens. Absent where there is none."""
    language: Language | None = None
    """Of the mails to the user. Absent in events of version 0.1: not known, not changed."""

    def to_json(self) -> str:
        """The message body."""
        return self.model_dump_json(exclude_defaults=True)


class UserPasswordResetRequested(Event):
    """Someone asked for a new password for this account. The token permits to set one until `expires_at`, once.

    The only place of the token in plain text: users stores its SHA-256. A consumer stores it no longer than it needs to
    send the mail, and shows it in no log and in no view.
    """

    event_type: ClassVar[str] = "user.password_reset_requested"
    producer: ClassVar[str] = "users"
    consumers: ClassVar[tuple[str, ...]] = ("notifications",)
    secret_for: ClassVar[timedelta | None] = PASSWORD_RESET_LIFETIME

    user_id: UUID
    email: str
    token: str
    expires_at: Instant
    language: Language = Language.ENGLISH


class UserEmailVerificationRequested(Event):
    """An account was registered, or its user asked again to verify the address. The token proves it, once.

    The token is treated as the one of UserPasswordResetRequested.
    """

    event_type: ClassVar[str] = "user.email_verification_requested"
    producer: ClassVar[str] = "users"
    consumers: ClassVar[tuple[str, ...]] = ("notifications",)
    secret_for: ClassVar[timedelta | None] = EMAIL_VERIFICATION_LIFETIME

    user_id: UUID
    email: str
    token: str
    expires_at: Instant
    language: Language = Language.ENGLISH


class UserDeleted(Event):
    """A user deleted the account. Consumers remove what identifies the person; it may be the first event of an account.

    Events about this account that arrive later bring no personal data back.
    """

    event_type: ClassVar[str] = "user.deleted"
    producer: ClassVar[str] = "users"
    consumers: ClassVar[tuple[str, ...]] = ("notifications", "orders", "payments")

    user_id: UUID


# Requests


class Registration(Request):
    """The body of POST /users/register. `language` is that of the mails to the user."""

    email: Email
    password: Password
    language: Language = Language.ENGLISH


class Credentials(Request):
    """The body of POST /users/login."""

    email: Email
    password: Password


class ChangePassword(Request):
    """The body of PUT /users/me/password."""

    current_password: Password
    new_password: Password


class RequestPasswordReset(Request):
    """The body of POST /users/password-reset."""

    email: Email


class ConfirmPasswordReset(Request):
    """The body of POST /users/password-reset/confirm."""

    token: MailedToken
    new_password: Password


class VerifyEmail(Request):
    """The body of POST /users/verify-email."""

    token: MailedToken


class UpdateProfile(Request):
    """The body of PATCH /users/me."""

    language: Language


class DeleteAccount(Request):
    """The body of DELETE /users/me."""

    password: Password


class RefreshToken(Request):
    """The body of POST /users/refresh-token and /users/logout."""

    refresh_token: Token


class VerifyToken(Request):
    """The body of POST /users/verify-token."""

    token: Token


class UpdateUser(Request):
    """The body of PATCH /users/{id}. Absent fields do not change."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    roles: Annotated[tuple[Role, ...], Field(min_length=1, max_length=len(Role)), at_most(len(Role))] = ABSENT
    is_active: StrictBool = ABSENT


class ChangesWithin(Request):
    """A period for user.updated events: the last `seconds` before `until`, by default before now."""

    seconds: Annotated[int, Field(strict=True, ge=1, le=24 * 3600), WHOLE]
    until: Instant | None = None


# Views


class UserView(View):
    """An account, never its password."""

    id: UUID
    email: str
    roles: tuple[Role, ...]
    is_active: bool
    email_verified: bool
    language: Language
    created_at: Instant
    updated_at: Instant


class LoginView(View):
    """A session of an account, from its login to its end. `id` is the `sid` of its access tokens."""

    id: UUID
    created_at: Instant
    expires_at: Instant
    revoked_at: Instant | None


class Accepted(View):
    """A request that is carried out after the response. `detail` is for people."""

    detail: str


class SessionView(View):
    """The result of register, login and refresh. `expires_in` is the lifetime of the access token in seconds."""

    user: UserView
    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int


class BrowserSession(View):
    """The session of a browser. Its refresh token is in a cookie that no script can read."""

    user: UserView
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int


class DemoAccount(View):
    """An account of the demo shop, with its published password."""

    email: str
    password: str
    role: Role


class BrowserState(View):
    """What a page knows before it has a session. `is_signed_in` says whether the browser has sent a session's cookie.

    `demo_accounts` is empty in production. Their password is another one where DEMO_PASSWORD was set. `supervisor_url`
    is the address of the supervisor of `make run`, with which an administrator can end and freeze services; null
    elsewhere.
    """

    is_signed_in: bool
    in_production: bool
    demo_accounts: tuple[DemoAccount, ...]
    supervisor_url: str | None


class VerifiedToken(View):
    """The content of a valid access token."""

    valid: Literal[True] = True
    user_id: UUID
    roles: tuple[Role, ...]
    expires_at: Instant


class PublicKey(View):
    """A JSON Web Key (RFC 7517, RFC 8037) that verifies access tokens."""

    crv: str
    kty: str
    x: str
    kid: str
    use: str
    alg: str


class KeySet(View):
    """A JSON Web Key Set."""

    keys: tuple[PublicKey, ...]


class Changes(TypedDict):
    """A page of user.updated events in plain JSON. `until` is the argument for the next page; None on the last page."""

    items: list[dict[str, Any]]
    until: str | None


# RPC


class UsersRpc(OperatedRpc, Protocol):
    """RPC methods of users."""

    def register(
        self,
        registration: Registration,
        address: str = "",
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
    ) -> Json[SessionView]:
        """Open a customer's account and log in. Raises UserAlreadyExists, WeakPassword.

        With the key of an earlier registration: AlreadyCompleted if its session cannot be returned again. Another
        password than before counts as a failed login from `address`: TooManyFailedLogins.
        """

    def login(self, credentials: Credentials, address: str = "") -> Json[SessionView]:
        """Start a session. Raises InvalidCredentials, UserInactive, TooManyFailedLogins.

        `address` is the client's network address: most failed logins are counted for each address separately.
        """

    def refresh(self, token: RefreshToken) -> Json[SessionView]:
        """Replace a refresh token by a new pair of tokens. For 10 s the old one still returns the same pair.

        Raises InvalidToken, TokenRevoked, UserInactive.
        """

    def logout(self, token: RefreshToken, *, actor: Actor = OPERATOR) -> None:
        """End the session of this refresh token at once, and its access token within a minute."""

    def verify(self, token: VerifyToken) -> Json[VerifiedToken]:
        """Check an access token. Raises InvalidToken, TokenRevoked."""

    def get_user(self, user_id: UUID, *, actor: Actor = OPERATOR) -> Json[UserView]:
        """Return one account, to a customer only their own. Raises UserNotFound."""

    def list_users(self, page: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[UserView]]:
        """List accounts, newest first (admin)."""

    def list_changed(self, wanted: ChangesWithin, *, actor: Actor = OPERATOR) -> Changes:
        """List the user.updated events of a period, for a process that may have missed them (admin)."""

    def update_user(
        self,
        user_id: UUID,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
        changes: UpdateUser,
    ) -> Json[UserView]:
        """Change the stated fields of an account (admin).

        `if_match` are entity tags, one of which the account must have. Raises UserNotFound, InvalidState,
        PreconditionFailed.
        """

    def change_password(
        self,
        change: ChangePassword,
        address: str = "",
        session_id: str = "",
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> None:
        """Set another password for the actor, and end all sessions except `session_id`.

        A wrong current password counts as a failed login from `address`. Raises WrongPassword, TooManyFailedLogins,
        WeakPassword, UserNotFound, UserInactive, PreconditionFailed.
        """

    def request_password_reset(self, request: RequestPasswordReset) -> None:
        """Ask for a mail with a token that sets a new password. Whether there is an account is looked up afterwards.

        An account that has five unused tokens gets no further one until the first of them has expired.
        """

    def confirm_password_reset(self, reset: ConfirmPasswordReset, address: str = "") -> None:
        """Set the password with the token of a mail, and end all sessions. Raises InvalidMailedToken, WeakPassword."""

    def request_email_verification(self, *, actor: Actor = OPERATOR) -> None:
        """Send the actor another token to verify the address. Raises UserNotFound, InvalidState, RateLimited."""

    def verify_email(self, verification: VerifyEmail) -> None:
        """Record that the address of a mail's token belongs to its account. Raises InvalidMailedToken."""

    def update_profile(
        self, *, actor: Actor = OPERATOR, if_match: Sequence[str] | None = None, changes: UpdateProfile
    ) -> Json[UserView]:
        """Change the actor's own account. Raises UserNotFound, PreconditionFailed."""

    def list_sessions(self, user_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[LoginView]]:
        """List the sessions of an account, newest first; to a customer only their own. Raises UserNotFound."""

    def delete_account(self, deletion: DeleteAccount, address: str = "", *, actor: Actor = OPERATOR) -> None:
        """Remove the actor's personal data here, and in all services by UserDeleted. A repeated call changes nothing.

        A wrong password counts as a failed login from `address`. Raises WrongPassword, TooManyFailedLogins,
        UserNotFound, and InvalidState for the last active administrator.
        """

    def set_roles(self, user_id: UUID, roles: Sequence[Role], *, actor: Actor = OPERATOR) -> Json[UserView]:
        """Give an account exactly these roles (admin), such as `["customer", "admin"]`."""

    def set_active(self, user_id: UUID, is_active: bool, *, actor: Actor = OPERATOR) -> Json[UserView]:
        """Switch an account on or off (admin); off ends its sessions."""


# Errors


class UserNotFound(NotFound):
    """No such user."""

    code, status, detail = "USER_NOT_FOUND", 404, "There is no user with this id."


class UserAlreadyExists(ServiceError):
    """The address is taken."""

    code, status, detail = "USER_ALREADY_EXISTS", 409, "There is an account with this e-mail address. Log in instead."


class AlreadyCompleted(ServiceError):
    """A registration was sent again with its idempotency key, after its session had been used or had ended."""

    code, status = "ALREADY_COMPLETED", 409
    detail = "This registration was completed, and its first session is no longer the one that it began with. Log in."


class InvalidCredentials(ServiceError):
    """Unknown address or wrong password; the response does not tell which."""

    code, status, detail = "INVALID_CREDENTIALS", 401, "E-mail address or password is wrong."


class WrongPassword(InvalidCredentials):
    """A user stated the own password, and it is wrong."""

    detail = "The password of your account is another one. Nothing was done."


class TooManyFailedLogins(RateLimited):
    """Too many wrong passwords for an address, with or without an account."""

    detail = "Too many logins for this address have failed. No password is taken for it now, not even the right one."
    policy = "failed_logins"


class InvalidToken(ServiceError):
    """The token is malformed, expired, or was not issued by this suite."""

    code, status, detail = "INVALID_TOKEN", 401, "The token is malformed, expired or not ours. Log in again."


class InvalidMailedToken(InvalidToken):
    """The token of a mail is unknown, was used, or has expired."""

    detail = "This token was used already, has expired, or is not ours. Ask for another mail."


class OtherAuthorization(InvalidToken):
    """The Authorization header has another scheme, or no token."""

    detail = "The Authorization header is not: Bearer <token>."


class TokenExpired(InvalidToken):
    """An expired access token. Raised only after its signature was verified."""

    detail = "The access token has expired. Get a new pair with POST /users/refresh-token."


class NotSignedIn(InvalidToken):
    """The browser has sent no cookie of a session."""

    detail = "There is no session in this browser. Sign in."


class TokenRevoked(ServiceError):
    """The token was issued by this suite, and was revoked."""

    code, status, detail = "TOKEN_REVOKED", 401, "The token was revoked. Log in again."


class NotAnAccessToken(InvalidToken):
    """Something other than an access token was sent as one; most often it is the refresh token."""

    detail = (
        "This is no access token. Send the access_token of your session; "
        "the refresh_token only gets the next one, from POST /users/refresh-token."
    )


class NotARefreshToken(InvalidToken):
    """An access token was sent as a refresh token."""

    detail = "This looks like an access token. Send the refresh_token that came with it."


class UserInactive(ServiceError):
    """The account is switched off."""

    code, status, detail = "USER_INACTIVE", 403, "This account is switched off. Ask an administrator."


class EmailNotVerified(ServiceError):
    """The shop takes orders only from users who have verified their address, and this user has not."""

    code, status = "EMAIL_NOT_VERIFIED", 403
    detail = "Verify your e-mail address first. POST /users/me/verification-email sends the mail again."


class WeakPassword(ServiceError):
    """The password is too short or too well known."""

    code, status = "WEAK_PASSWORD", 422
    detail = f"Choose a password of at least {MIN_PASSWORD} characters that is not a well-known one."
