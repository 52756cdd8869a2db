"""What an operator sees and does over HTTP: a saga that waits, a message that died, and whether everything adds up."""

import pytest
from amqp.exceptions import AccessRefused
from nameko.standalone.rpc import ClusterRpcClient

from contracts.errors import DeadLetterNotFound
from contracts.ids import new_id
from contracts.services import SERVICES
from deploy import healthcheck
from deploy.accounts import OPERATOR
from extensions.runtime.addresses import uri_variable
from tests.support import eventually

QUEUE = "inventory.on_order_confirmed"


def consistency(shop):
    """(at rest, what is broken) as the API says it."""
    seen = shop.get("/admin/consistency")
    return seen["at_rest"], {check["name"]: check["ids"] for check in seen["checks"] if check["count"]}


@pytest.fixture
def forged(shop):
    """What is broken already, and stays so: other tests send events about orders that never were."""
    at_rest, broken = eventually(lambda: (seen := consistency(shop))[0] and seen, timeout=90, pause=0.5)
    assert at_rest
    return broken


def waiting(shop, order):
    """What an order waits for, None where it is not under way."""
    items = shop.get("/admin/sagas?limit=100")["items"]
    return next((item["awaits"] for item in items if item["id"] == order["id"]), None)


def test_an_order_that_waits_is_seen_with_what_it_waits_for(shop, forged):
    tea = shop.product()
    shop.stop("payments")
    order = shop.order((tea, 1))
    eventually(lambda: waiting(shop, order) == ["payments has not answered order.created"])
    status, problem = shop.admin.request("GET", "/admin/consistency")
    assert (status, problem["code"]) == (503, "SERVICE_UNAVAILABLE") or status == 504  # whose books are not at hand
    shop.start("payments")
    # Confirmed, or cancelled where the services took longer to start than its deadline: nobody waits any more.
    eventually(lambda: waiting(shop, order) is None, timeout=60)
    eventually(lambda: consistency(shop) == (True, forged), timeout=90, pause=0.5)


def test_a_message_that_died_is_seen_replayed_once_and_given_up(shop, forged, bus, caller):
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

    (again,) = eventually(letters)  # it is no better than before
    assert again["id"] > letter["id"]
    caller.inventory.discard_dead_letter(again["id"])
    assert letters() == []
    assert shop.admin.request("POST", f"/admin/dead-letters/{again['id']}/replay")[0] == DeadLetterNotFound.status
    eventually(lambda: consistency(shop) == (True, forged), timeout=90, pause=0.5)


def test_the_operators_user_calls_every_service_as_nameko_shell_does(shop, environment):
    with ClusterRpcClient(uri=environment[uri_variable(OPERATOR)], timeout=10) as rpc:
        assert {getattr(rpc, service).health()["status"] for service in SERVICES} == {"ok"}


def test_a_service_may_ask_how_it_is_itself_and_nobody_else(shop, environment):
    for service in SERVICES:
        healthcheck.check(environment[uri_variable(service)], service, timeout=10)
    with pytest.raises(AccessRefused):
        healthcheck.check(environment[uri_variable("orders")], "payments", timeout=10)
