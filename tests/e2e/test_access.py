"""Every operation of the OpenAPI document, for everybody, on everybody's things (OWASP API1, 3 and 5)."""

import re

import httpx
import pytest

from extensions.http.openapi.document import document
from gateway.routes.docs import INFO
from gateway.service import GatewayService
from tests.e2e.access import ANONYMOUS, CALLERS, CASES, CUSTOMERS, LOGGED_OUT, OK, REVOKED, World
from tests.support import Bus, Caller

DOCUMENT = document(GatewayService, INFO)
OPERATIONS = {
    told["operationId"]: (method.upper(), path, told)
    for path, methods in DOCUMENT["paths"].items()
    for method, told in methods.items()
}
WITH_BODY = [name for name, (_, _, told) in OPERATIONS.items() if "requestBody" in told]
# What a client may wish it could set.
WISHES = {
    "id": "0190a6b2-0000-7000-8000-000000000001",
    "user_id": "0190a6b2-0000-7000-8000-000000000001",
    "roles": ["admin"],
    "role": "admin",
    "is_admin": True,
    "is_active": True,
    "status": "CONFIRMED",
    "price": "0.01",
    "version": 99,
    "created_at": "2020-01-01T00:00:00Z",
    "__proto__": {"is_admin": True},
}


@pytest.fixture(scope="module")
def world(running):
    bus = Bus()
    yield World(running, bus)
    bus.close()
    letters = running.get("/admin/dead-letters?service=notifications&limit=100")["items"]
    for letter in letters:  # what was replayed has died again
        if letter["body"] == "{":
            Caller().notifications.discard_dead_letter(letter["id"])


@pytest.fixture(scope="module")
def http(running):
    with httpx.Client(base_url=running.url, timeout=15) as client:
        yield client


def case_of(name):
    return CASES[OPERATIONS[name][2].get("x-alias-of", name)]


def codes_of(told, status):
    """The codes that the document lists for a status."""
    reference = told["responses"][str(status)]["$ref"].rpartition("/")[2]
    (content,) = DOCUMENT["components"]["responses"][reference]["content"].values()
    return content["schema"]["allOf"][1]["properties"]["code"]["enum"]


def owner_of(whose, caller):
    """Whose thing it is that this caller asks for."""
    if whose == "own":
        return CUSTOMERS[0] if caller in {"anonymous", LOGGED_OUT} else caller
    return CUSTOMERS[1] if caller != CUSTOMERS[1] else CUSTOMERS[0]


def test_every_operation_has_its_case():
    originals = {told.get("x-alias-of", name) for name, (_, _, told) in OPERATIONS.items()}
    assert originals == set(CASES), "say in tests/e2e/access.py who may call it"


@pytest.mark.parametrize("name", OPERATIONS)
def test_everybody_gets_what_the_contract_says(name, world, http):
    method, path, told = OPERATIONS[name]
    case = case_of(name)
    wrong = []
    for caller in CALLERS:
        for whose in case.whose:
            expected = case.expected(caller, whose)
            answer = ask(http, world, case, method, path, caller, whose, fresh=expected == OK)
            if not fits(answer, expected, told):
                wrong.append(f"{caller}, {whose}: {answer.status_code} {answer.text[:200]}, not {expected}")
    assert wrong == []


def ask(http, world, case, method, path, caller, whose, *, fresh):
    """Send one request of the matrix. Who succeeds changes the thing, so that it has to be `fresh`."""
    thing = None
    if whose == "missing":
        thing = case.missing()
    elif case.thing:
        is_product = case.thing.__name__ == "_product_of"
        thing = world.thing(case, whose if is_product else owner_of(whose, caller), fresh=fresh)
    url = re.sub(r"\{\w+\}", str(thing), path)
    # Where the path has no room for the thing, the body is made of it.
    body = case.body(thing if thing and url == path else world) if case.body else None
    return http.request(method, url, json=body, headers=world.headers(caller))


def fits(answer, expected, told):
    if str(answer.status_code) not in told["responses"]:
        return False
    if expected == OK:
        return answer.is_success
    status = ANONYMOUS if expected == REVOKED else expected
    if answer.status_code != status:
        return False
    code = answer.json()["code"]
    return code in codes_of(told, status) and expected in {status, code}


def test_lists_hold_only_what_is_the_callers(world, http):
    for path, field in (("/orders", "user_id"), ("/payments", "user_id")):
        for caller in CUSTOMERS:
            items = http.get(f"{path}?limit=100", headers=world.headers(caller)).json()["items"]
            assert {item[field] for item in items} == {world.sessions[caller]["user"]["id"]}, (path, caller)
    mails = {
        caller: {item["id"] for item in http.get("/notifications", headers=world.headers(caller)).json()["items"]}
        for caller in CUSTOMERS
    }
    assert all(mails.values())
    assert not mails["ayse"] & mails["burak"]


@pytest.mark.parametrize("path", ["/products?only_active=false", "/orders?user_id={user}"])
def test_filters_of_the_administrator_are_refused_to_others(path, world, http):
    url = path.format(user=world.sessions["burak"]["user"]["id"])
    assert [http.get(url, headers=world.headers(caller)).status_code for caller in CALLERS] == [401, 403, 403, 200, 401]


def test_a_filter_finds_nothing_of_somebody_else(world, http):
    url = f"/payments?order_id={world.orders['burak']}"
    assert http.get(url, headers=world.headers("ayse")).json()["items"] == []


@pytest.mark.parametrize("name", WITH_BODY)
def test_nobody_sets_what_is_not_theirs_to_set(name, world, http):
    """Mass assignment: a field that the body does not have is refused by its name, and nothing is done."""
    method, path, told = OPERATIONS[name]
    schema, example = body_of(told)
    url = re.sub(r"\{\w+\}", world.tea["id"], path)
    for wish, value in WISHES.items():
        for field, body in wished(schema, example, wish, value):
            answer = http.request(method, url, json=body, headers=world.headers("admin"))
            assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR"), (wish, answer.text)
            assert {"field": field, "message": "is not a known field"} in answer.json()["errors"]


def wished(schema, example, wish, value):
    """The example with the wish in it, at the top and in the objects of its lists; with the field that is wrong."""
    if wish not in schema["properties"]:
        yield wish, {**example, wish: value}
    for name, kind in schema["properties"].items():
        reference = kind.get("items", {}).get("$ref", "").rpartition("/")[2]
        inner = DOCUMENT["components"]["schemas"].get(reference, {})
        if "properties" in inner and wish not in inner["properties"]:
            first, *rest = example[name]
            yield f"{name}[0].{wish}", {**example, name: [{**first, wish: value}, *rest]}


def body_of(told):
    content = told["requestBody"]["content"]["application/json"]
    return DOCUMENT["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]], content["example"]
