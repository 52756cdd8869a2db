"""/users/me: what users do with their own accounts."""

from contracts.account_exports import AccountExport, ExportQuery
from contracts.base import Json
from contracts.errors import InvalidState
from contracts.services import Services
from contracts.users import (
    Accepted,
    ChangePassword,
    ConfirmPasswordReset,
    DeleteAccount,
    InvalidMailedToken,
    RequestPasswordReset,
    UpdateProfile,
    UserInactive,
    UserNotFound,
    UserView,
    VerifyEmail,
    WeakPassword,
    WrongPassword,
)
from extensions.http.message.request import Access, HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.route import route
from gateway import account_export


class Routes:
    """The routes for the own account."""

    services: Services

    @route(
        "PATCH",
        "/users/me",
        access=Access.USER,
        service="users",
        body=UpdateProfile,
        response=UserView,
        errors=(UserNotFound,),
    )
    def update_profile(self, request: HttpRequest[UpdateProfile]) -> Json[UserView]:
        """Change the language of the mails to the caller."""
        return self.services.users.update_profile(changes=request.body, **request.precondition, actor=request.actor)

    @route(
        "PUT",
        "/users/me/password",
        access=Access.USER,
        service="users",
        body=ChangePassword,
        status=204,
        errors=(WrongPassword, WeakPassword, UserNotFound, UserInactive),
        compute_heavy=True,
        rate_limit="login",
    )
    def change_password(self, request: HttpRequest[ChangePassword]) -> None:
        """Set another password, and end all other sessions of the caller.

        A wrong current password counts as a failed login. `If-Match` is compared with the ETag of GET /users/me.
        """
        session_id = request.token and request.token.session_id
        self.services.users.change_password(
            request.body,
            address=request.address,
            session_id=str(session_id or ""),
            **request.precondition,
            actor=request.actor,
        )

    @route(
        "POST",
        "/users/password-reset",
        access=Access.ANYONE,
        service="users",
        body=RequestPasswordReset,
        response=Accepted,
        status=202,
        rate_limit="password_reset",
    )
    def request_password_reset(self, request: HttpRequest[RequestPasswordReset]) -> Json[Accepted]:
        """Ask for a mail with a token that sets a new password.

        The response is the same for an address without an account.
        """
        self.services.users.request_password_reset(request.body)
        return Accepted(detail="If there is an account with this address, a mail is on its way.").to_dict()

    @route(
        "POST",
        "/users/password-reset/confirm",
        access=Access.ANYONE,
        service="users",
        body=ConfirmPasswordReset,
        status=204,
        errors=(InvalidMailedToken, WeakPassword, UserInactive),
        compute_heavy=True,
        rate_limit="password_reset",
    )
    def confirm_password_reset(self, request: HttpRequest[ConfirmPasswordReset]) -> None:
        """Set a new password with the token of a mail, and end all sessions of the account.

        The token works once, within 30 minutes.
        """
        self.services.users.confirm_password_reset(request.body, address=request.address)

    @route(
        "POST",
        "/users/verify-email",
        access=Access.ANYONE,
        service="users",
        body=VerifyEmail,
        status=204,
        errors=(InvalidMailedToken,),
    )
    def verify_email(self, request: HttpRequest[VerifyEmail]) -> None:
        """Verify the address of an account with the token of a mail. The token works once, within 24 hours."""
        self.services.users.verify_email(request.body)

    @route(
        "POST",
        "/users/me/verification-email",
        access=Access.USER,
        service="users",
        response=Accepted,
        status=202,
        errors=(UserNotFound, InvalidState),
    )
    def request_email_verification(self, request: HttpRequest) -> Json[Accepted]:
        """Send the mail that verifies the address of the caller again."""
        self.services.users.request_email_verification(actor=request.actor)
        return Accepted(detail="A mail is on its way.").to_dict()

    @route(
        "GET",
        "/users/me/export",
        access=Access.USER,
        query=ExportQuery,
        response=AccountExport,
        errors=(UserNotFound,),
    )
    def export_account(self, request: HttpRequest[None, ExportQuery]) -> Response:
        """Export everything that is kept about the caller.

        The response has at most 500 records. While `next_cursor` is not null, there are more: send it as `cursor`.
        """
        found = account_export.gather(self.services, request.user_id, request.actor, request.query.cursor)
        return Response(found, headers={"Cache-Control": "no-store"})

    @route(
        "DELETE",
        "/users/me",
        access=Access.USER,
        service="users",
        body=DeleteAccount,
        status=204,
        errors=(WrongPassword, UserNotFound, InvalidState),
        compute_heavy=True,
        rate_limit="login",
    )
    def delete_account(self, request: HttpRequest[DeleteAccount]) -> None:
        """Delete the account of the caller: personal data is removed in every service, and open orders are cancelled.

        The orders and payments themselves stay in the books. A wrong password counts as a failed login.
        """
        self.services.users.delete_account(request.body, address=request.address, actor=request.actor)
