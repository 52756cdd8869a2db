"""A POST with an Idempotency-Key is executed once, and its response is repeated byte for byte."""

import eventlet
import httpx
import pytest
import sqlalchemy

from contracts.ids import new_id
from contracts.users import WeakPassword
from extensions.rpc.server import RpcServer
from extensions.storage.unit_of_work import UnitOfWork
from tests.service.gateway.responses import PASSWORD, bearer, ok, undocumented
from tests.support import TEST_TIMEOUT_SECONDS, database, eventually

NOBODYS = str(new_id())


def posts(product, without_stock=NOBODYS):
    """For each POST that creates: path, body, another body, and one that is refused with a 4xx that is stored."""
    stock = {"product_id": without_stock}
    account = {"email": "fatma@example.com", "password": PASSWORD}
    line = {"product_id": product["id"], "quantity": 1}
    return {
        "register": (
            "/users/register",
            account,
            account | {"email": "zeynep@example.com"},
            account | {"email": "ayse@example.com"},
        ),
        "product": (
            "/products",
            {"sku": "B-1", "name": "Şeker", "price": "1.00"},
            {"sku": "B-2", "name": "Şeker", "price": "1.00"},
            {"sku": "a-1", "name": "Şeker", "price": "1.00"},
        ),
        "stock": (
            "/inventory",
            {**stock, "quantity": 5},
            {**stock, "quantity": 6},
            {"product_id": NOBODYS, "quantity": 5},
        ),
        "adjustment": (
            f"/inventory/{product['id']}/adjustments",
            {"delta": 1, "reason": "found"},
            {"delta": 2, "reason": "found"},
            {"delta": -1000, "reason": "lost"},
        ),
        "order": (
            "/orders",
            {"items": [line]},
            {"items": [line | {"quantity": 2}]},
            {"items": [{"product_id": NOBODYS, "quantity": 1}]},
        ),
    }


@pytest.fixture
def post(api, admin, session, product, request):
    """Send one of the POSTs under a key: `post("order", which=0)`."""

    without_stock = NOBODYS
    if "stock" in request.node.name:
        new = {"sku": "BARE", "name": "Tuz", "price": "1.00"}
        without_stock = ok(api.post("/products", json=new, headers=admin), 201)["id"]

    def send(kind, which=0, key="once", suffix="", **headers):
        path, *bodies = posts(product, without_stock)[kind]
        headers = {**admin, "Idempotency-Key": key, **headers}
        return api.post(path + suffix, json=bodies[which], headers=headers)

    return send


PATHS = {
    "register": "/users/register",
    "product": "/products",
    "stock": "/inventory",
    "adjustment": "/inventory/{product_id}/adjustments",
    "order": "/orders",
}
KINDS = tuple(PATHS)


def same(first, again):
    """Check whether the second response repeats the first."""
    return (first.status_code, first.content, first.headers.get("location"), first.headers["content-type"]) == (
        again.status_code,
        again.content,
        again.headers.get("location"),
        again.headers["content-type"],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_response_is_repeated_byte_for_byte(post, kind):
    first, again = post(kind), post(kind, suffix="/")
    ok(first, 201)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert same(first, again)
    assert first.headers["x-request-id"] != again.headers["x-request-id"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_belongs_to_one_body(post, kind):
    first = post(kind)
    refused = post(kind, which=1)
    assert (refused.status_code, refused.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert "idempotent-replayed" not in refused.headers
    assert undocumented(refused, PATHS[kind]) == set()
    assert same(first, post(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_is_repeated_byte_for_byte(post, kind):
    first, again = post(kind, which=2), post(kind, which=2, suffix="/")
    assert first.status_code in (409, 422)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert undocumented(again, PATHS[kind]) == set()
    assert same(first, again)
    assert first.json()["request_id"] == first.headers["x-request-id"] != again.headers["x-request-id"]
    assert post(kind, which=0).json()["code"] == "IDEMPOTENCY_KEY_REUSED"


def test_a_not_found_response_is_repeated_too(api, admin):
    headers, body = {**admin, "Idempotency-Key": "once"}, {"delta": 1, "reason": "found"}
    first, again = (api.post(f"/inventory/{NOBODYS}/adjustments", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.headers["idempotent-replayed"]) == (404, "true")
    assert undocumented(again, PATHS["adjustment"]) == set()


def test_an_alias_is_the_same_route(api, session, product):
    headers = {**bearer(session), "Idempotency-Key": "once"}
    for body in posts(product)["order"][1:4:2]:  # one that succeeds, one that is refused
        headers["Idempotency-Key"] += "-more"
        first = api.post("/orders", json=body, headers=headers)
        assert same(first, api.post("/orders/create-order/", json=body, headers=headers))


@pytest.mark.parametrize(
    "wrong", [{"content": b"{"}, {"json": {"items": []}}, {"content": b"{}", "headers": {"Content-Type": "text/plain"}}]
)
def test_an_invalid_request_can_be_corrected_with_the_same_key(api, session, product, wrong):
    headers = {**bearer(session), "Idempotency-Key": "once"}
    refused = api.post("/orders", **{**wrong, "headers": headers | wrong.get("headers", {})})
    assert refused.status_code in (400, 415)
    ok(api.post("/orders", json=posts(product)["order"][1], headers=headers), 201)


def test_a_key_belongs_to_one_user(api, admin, session, product):
    body = posts(product)["order"][1]
    answers = [
        ok(api.post("/orders", json=body, headers={**who, "Idempotency-Key": "once"}), 201)
        for who in (admin, bearer(session))
    ]
    assert answers[0]["id"] != answers[1]["id"]


class TestRegistration:
    """Without a user, keys are shared by all clients. No password and no token may be stored with them."""

    def test_another_password_is_another_request(self, post, api):
        ok(post("register"), 201)
        body = {"email": "fatma@example.com", "password": "another horse 8 battery"}
        refused = api.post("/users/register", json=body, headers={"Idempotency-Key": "once"})
        assert refused.json()["code"] == "IDEMPOTENCY_KEY_REUSED"

    def test_a_weak_password_is_refused_again(self, api):
        body = {"email": "fatma@example.com", "password": "Password123!"}
        first, again = (api.post("/users/register", json=body, headers={"Idempotency-Key": "once"}) for _ in range(2))
        assert first.json()["code"] == WeakPassword.code
        assert same(first, again)

    def test_no_secret_is_stored(self, post):
        made = ok(post("register"), 201)
        with database("users").connect() as connection:
            (row,) = connection.scalars(sqlalchemy.text("SELECT k::text FROM idempotency_keys k"))
        for secret in (PASSWORD, made["access_token"], made["refresh_token"]):
            assert secret not in row


class TestConcurrentRequests:
    @pytest.mark.parametrize("kind", ["order", "product"])
    def test_fifty_requests_through_two_gateways_create_one_resource(self, gateway, api, admin, product, kind):
        other = gateway()
        path, body, *_ = posts(product)[kind]
        headers = {**admin, "Idempotency-Key": "once"}

        def send(number):
            url = str((api, other)[number % 2].base_url)
            with httpx.Client(base_url=url, timeout=TEST_TIMEOUT_SECONDS, verify=False) as client:
                return client.post(path, json=body, headers=headers)

        eventually(lambda: other.get("/health/ready").status_code == 200)
        answers = list(eventlet.GreenPool(50).imap(send, range(50)))
        # 503 and 504 can occur on a busy machine.
        assert {answer.status_code for answer in answers} <= {201, 409, 503, 504}
        assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"IDEMPOTENCY_KEY_IN_USE"}
        made = [answer for answer in answers if answer.status_code == 201]
        made.append(eventually(lambda: (last := api.post(path, json=body, headers=headers)).is_success and last))
        assert len({answer.content for answer in made}) == 1
        assert sum("idempotent-replayed" not in answer.headers for answer in made) <= 1
        listed = ok(api.get(path, headers=admin))["items"]
        assert [item["id"] for item in listed if item["id"] != product["id"]] == [made[0].json()["id"]]

    def test_the_second_request_is_refused_while_the_first_runs(self, api, session, product, monkeypatch):
        headers, body = {**bearer(session), "Idempotency-Key": "once"}, posts(product)["order"][1]
        reached, go_on, commit = eventlet.Event(), eventlet.Event(), UnitOfWork._commit

        def slow(unit):
            if unit._outbox and not reached.ready():
                reached.send()
                go_on.wait()
            commit(unit)

        monkeypatch.setattr(UnitOfWork, "_commit", slow)
        first = eventlet.spawn(api.post, "/orders", json=body, headers=headers)
        reached.wait()
        with httpx.Client(base_url=str(api.base_url), verify=False) as second:
            refused = second.post("/orders", json=body, headers=headers)
        go_on.send()
        assert (refused.status_code, refused.json()["code"]) == (409, "IDEMPOTENCY_KEY_IN_USE")
        assert refused.headers["retry-after"] == "1"
        assert undocumented(refused, "/orders") == set()
        ok(first.wait(), 201)


class TestACrash:
    def test_before_the_commit_stores_nothing(self, post, monkeypatch):
        commit = UnitOfWork._commit

        def fail(unit):
            if not unit._outbox:
                return commit(unit)
            monkeypatch.setattr(UnitOfWork, "_commit", commit)
            raise RuntimeError("the process dies here")

        monkeypatch.setattr(UnitOfWork, "_commit", fail)
        assert post("order").status_code == 500
        made = post("order")
        ok(made, 201)
        assert "idempotent-replayed" not in made.headers
        assert orders_placed() == 1

    def test_after_the_commit_repeats_the_order(self, post, monkeypatch):
        reply = RpcServer._reply

        def lose(server, channel, message, result, error):
            if server.queue != "rpc-orders":
                reply(server, channel, message, result, error)

        monkeypatch.setattr(RpcServer, "_reply", lose)
        assert post("order").json()["code"] == "UPSTREAM_TIMEOUT"
        monkeypatch.setattr(RpcServer, "_reply", reply)
        found = post("order")
        ok(found, 201)
        assert found.headers["idempotent-replayed"] == "true"
        assert orders_placed() == 1


def orders_placed():
    with database("orders").connect() as connection:
        return connection.scalar(sqlalchemy.text("SELECT count(*) FROM orders"))
