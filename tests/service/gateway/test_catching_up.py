"""A gateway that was not there when an account changed learns of it before it takes any token."""

import pytest

from contracts.errors import ServiceUnavailable
from gateway.service import GatewayService
from tests.support import eventually
from users import queries
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


def test_it_learns_of_all_however_many_they_are(run_service, caller, monkeypatch):
    """Those who logged out first too: their tokens are good for as long as the others'."""
    monkeypatch.setattr(queries, "MAX_CHANGED", 3)
    run_service(UsersService)
    sessions = [caller.users.register(f"{number}@example.com", "a-long-enough-password") for number in range(8)]
    for session in sessions[:4]:
        caller.users.logout(session["refresh_token"])
    for session in sessions[4:]:
        caller.users.set_active(session["user"]["id"], False)
    tokens = tokens_of(run_service(GatewayService))
    eventually(lambda: tokens.caught_up)
    switched_off = {str(user_id) for user_id, update in tokens._updates.items() if not update.is_active}
    assert switched_off == {session["user"]["id"] for session in sessions[4:]}
    assert len(tokens._ended) == 8


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
