"""At its start, a gateway fetches the account changes that it missed before it accepts any token."""

import pytest

from contracts.errors import ServiceUnavailable
from gateway.service import GatewayService
from tests.support import eventually
from users import queries
from users.service import UsersService


def tokens_of(gateway):
    (provider,) = [provider for provider in gateway.dependencies if provider.attr_name == "tokens"]
    return provider.shared.verified


def test_a_deactivated_account_is_refused_after_a_restart(run_service, caller):
    run_service(UsersService)
    session = caller.users.register("out@example.com", "a-long-enough-password")
    user_id = session["user"]["id"]
    caller.users.set_active(user_id, False)
    tokens = tokens_of(run_service(GatewayService))
    eventually(lambda: tokens.caught_up)
    assert [str(update.user_id) for update in tokens._updates.values() if not update.is_active] == [user_id]


def test_all_pages_of_changes_are_fetched(run_service, caller, monkeypatch):
    """Ended sessions as well as deactivated accounts."""
    monkeypatch.setattr(queries, "MAX_CHANGED", 3)
    run_service(UsersService)
    sessions = [caller.users.register(f"{number}@example.com", "a-long-enough-password") for number in range(8)]
    for session in sessions[:4]:
        caller.users.logout(session["refresh_token"])
    for session in sessions[4:]:
        caller.users.set_active(session["user"]["id"], False)
    tokens = tokens_of(run_service(GatewayService))
    eventually(lambda: tokens.caught_up)
    deactivated = {str(user_id) for user_id, update in tokens._updates.items() if not update.is_active}
    assert deactivated == {session["user"]["id"] for session in sessions[4:]}
    assert len(tokens._ended) == 8


def test_no_token_is_accepted_before_the_changes_are_known(run_service, caller):
    tokens = tokens_of(run_service(GatewayService))
    with pytest.raises(ServiceUnavailable):
        tokens.verify("any")
    run_service(UsersService)
    eventually(lambda: tokens.caught_up, timeout=15)


def test_a_new_account_is_no_change(run_service, caller):
    run_service(UsersService)
    caller.users.register("new@example.com", "a-long-enough-password")
    assert caller.users.list_changed(900)["items"] == []
