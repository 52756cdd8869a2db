"""A gateway that was not there when an account changed learns of it at its start."""

from gateway.service import GatewayService
from tests.support import eventually
from users.service import UsersService


def test_a_deactivated_account_stays_out_after_a_restart(run_service, caller):
    run_service(UsersService)
    session = caller.users.register("out@example.com", "a-long-enough-password")
    user_id = session["user"]["id"]
    caller.users.set_active(user_id, False)
    gateway = run_service(GatewayService)
    (provider,) = [provider for provider in gateway.dependencies if provider.attr_name == "tokens"]
    updates = provider.shared.verified._updates
    eventually(lambda: [str(update.user_id) for update in updates.values() if not update.is_active] == [user_id])


def test_a_new_account_is_no_change(run_service, caller):
    run_service(UsersService)
    caller.users.register("new@example.com", "a-long-enough-password")
    assert caller.users.list_changed(900)["items"] == []
