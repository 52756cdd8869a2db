"""A gateway that was not there when an account changed learns of it before it takes any token."""

import pytest

from contracts.errors import ServiceUnavailable
from gateway.service import GatewayService
from tests.support import eventually
from users.service import UsersService


def tokens_of(gateway):
    (provider,) = [provider for provider in gateway.dependencies if provider.attr_name == "tokens"]
    return provider.shared.verified


def test_a_deactivated_account_stays_out_after_a_restart(run_service, caller):
    run_service(UsersService)
    session = caller.users.register("out@example.com", "a-long-enough-password")
    user_id = session["user"]["id"]
    caller.users.set_active(user_id, False)
    tokens = tokens_of(run_service(GatewayService))
    eventually(lambda: tokens.caught_up)
    assert [str(update.user_id) for update in tokens._updates.values() if not update.is_active] == [user_id]


def test_no_token_is_taken_before(run_service, caller):
    tokens = tokens_of(run_service(GatewayService))
    with pytest.raises(ServiceUnavailable):
        tokens.verify("any")
    run_service(UsersService)
    eventually(lambda: tokens.caught_up, timeout=15)


def test_a_new_account_is_no_change(run_service, caller):
    run_service(UsersService)
    caller.users.register("new@example.com", "a-long-enough-password")
    assert caller.users.list_changed(900)["items"] == []
