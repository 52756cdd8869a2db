"""Whether the address of a caller is verified: the access token says so, or users is asked."""

from datetime import UTC, datetime
from unittest.mock import Mock

import pytest

from contracts.ids import new_id
from contracts.users import EmailNotVerified, Role
from extensions.http.message.request import HttpRequest
from extensions.observability.traces import Trace
from extensions.security.access_tokens import AccessToken
from gateway.routes.orders import require_verified_email

NOW = datetime.now(UTC)


def request(*, email_verified):
    made = HttpRequest("POST", "/orders", "", {}, Trace())
    made.token = AccessToken(new_id(), (Role.CUSTOMER,), NOW, NOW, email_verified=email_verified)
    return made


def users(*, email_verified):
    services = Mock()
    services.users.get_user.return_value = {"email_verified": email_verified}
    return services


def test_a_token_that_says_so_is_enough():
    services = users(email_verified=False)
    require_verified_email(request(email_verified=True), services)
    assert not services.users.get_user.called


def test_for_other_tokens_users_is_asked():
    asked = request(email_verified=False)
    services = users(email_verified=True)
    require_verified_email(asked, services)
    services.users.get_user.assert_called_once_with(asked.user_id, actor=asked.actor)


def test_an_address_that_is_not_verified_is_refused():
    with pytest.raises(EmailNotVerified):
        require_verified_email(request(email_verified=False), users(email_verified=False))
