"""Operators over HTTP: orders that wait for a service, dead letters, and the consistency check."""

import pytest
from amqp.exceptions import AccessRefused
from nameko.standalone.rpc import ClusterRpcClient

from contracts.errors import DeadLetterNotFound
from contracts.ids import new_id
from contracts.services import SERVICES
from deploy import healthcheck
from deploy.server_users import OPERATOR
from extensions.runtime.addresses import uri_variable
from tests.support import eventually

QUEUE = "inventory.on_order_confirmed"


def consistency(shop):
    """Return (at rest, {violated invariant: ids}) from the API."""
    seen = shop.get("/admin/consistency")
    return seen["at_rest"], {check["name"]: check["ids"] for check in seen["checks"] if check["count"]}


@pytest.fixture
def forged(shop):
    """The invariants that are violated before the test, because other tests send events about unknown orders."""
    at_rest, broken = eventually(lambda: (seen := consistency(shop))[0] and seen, timeout=90, pause=0.5)
    assert at_rest
    return broken


def waiting(shop, order):
    """What an order waits for; None if it is settled."""
    items = shop.get("/admin/sagas?limit=100")["items"]
    return next((item["awaits"] for item in items if item["id"] == order["id"]), None)


def test_an_order_that_waits_is_listed_with_what_it_waits_for(shop, forged):
    tea = shop.product()
    shop.stop("payments")
    order = shop.order((tea, 1))
    eventually(lambda: waiting(shop, order) == ["payments has not replied to order.created"])
    status, problem = shop.admin.request("GET", "/admin/consistency")
    assert (status, problem["code"]) == (503, "SERVICE_UNAVAILABLE") or status == 504  # payments does not respond
    shop.start("payments")
    # The order is confirmed, or cancelled if payments took longer to start than the deadline.
    eventually(lambda: waiting(shop, order) is None, timeout=60)
    eventually(lambda: consistency(shop) == (True, forged), timeout=90, pause=0.5)


def test_a_dead_letter_is_listed_replayed_once_and_discarded(shop, forged, bus, caller):
    message_id = str(new_id())
    bus.publish_raw(QUEUE, "{", exchange="", message_id=message_id)

    def letters(query=""):
        items = shop.get(f"/admin/dead-letters?queue={QUEUE}{query}")["items"]
        return [item for item in items if item["message_id"] == message_id]

    (letter,) = eventually(letters)
    assert (letter["service"], letter["body"]) == ("inventory", "{")
    assert letter["id"] in consistency(shop)[1]["no_dead_letters"]

    replayed = shop.admin.must("POST", f"/admin/dead-letters/{letter['id']}/replay")
    assert replayed["replayed_by"] == shop.get("/users/me")["id"]
    status, problem = shop.admin.request("POST", f"/admin/dead-letters/{letter['id']}/replay")
    assert (status, problem["code"]) == (409, "INVALID_STATE")
    assert [item["id"] for item in letters("&replayed=true")] == [letter["id"]]

    (again,) = eventually(letters)  # the replayed message fails again
    assert again["id"] > letter["id"]
    caller.inventory.discard_dead_letter(again["id"])
    assert letters() == []
    assert shop.admin.request("POST", f"/admin/dead-letters/{again['id']}/replay")[0] == DeadLetterNotFound.status
    eventually(lambda: consistency(shop) == (True, forged), timeout=90, pause=0.5)


def test_the_operators_user_calls_every_service_as_nameko_shell_does(shop, environment):
    with ClusterRpcClient(uri=environment[uri_variable(OPERATOR)], timeout=10) as rpc:
        assert {getattr(rpc, service).health()["status"] for service in SERVICES} == {"ok"}


def test_a_service_may_check_its_own_health_and_no_other(shop, environment):
    for service in SERVICES:
        healthcheck.check(environment[uri_variable(service)], service, timeout=10)
    with pytest.raises(AccessRefused):
        healthcheck.check(environment[uri_variable("orders")], "payments", timeout=10)
