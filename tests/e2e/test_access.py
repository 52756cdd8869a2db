"""Every operation of the OpenAPI document, called by every kind of caller on the resources of every owner.

This covers OWASP API1, API3 and API5.
"""

import re
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import pytest

from extensions.http.openapi.document import document
from extensions.http.routing.declaration import EVENT_STREAM
from gateway.routes.docs import INFO
from gateway.service import GatewayService
from tests.e2e.access import ANONYMOUS, CALLERS, CASES, CUSTOMERS, LOGGED_OUT, OK, REVOKED, World
from tests.support import TEST_TIMEOUT_SECONDS, Bus, Caller

DOCUMENT = document(GatewayService, INFO)
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
WITH_BODY = [
    name
    for name, (_, _, operation) in OPERATIONS.items()
    if "application/json" in operation.get("requestBody", {}).get("content", ())
]
# Fields that a client must not be able to set.
FORBIDDEN_FIELDS = {
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
    for letter in letters:  # a replayed message became a dead letter again
        if letter["body"] == "{":
            Caller().notifications.discard_dead_letter(letter["id"])


@pytest.fixture(scope="module")
def http(running):
    """A client that keeps no cookies: nobody has the session of the caller before."""
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    with httpx.Client(base_url=running.url, timeout=TEST_TIMEOUT_SECONDS, verify=False, cookies=no_cookies) as client:
        yield client


def case_of(name):
    return CASES[OPERATIONS[name][2].get("x-alias-of", name)]


def codes_of(operation, status):
    """The codes that the document lists for a status."""
    reference = operation["responses"][str(status)]["$ref"].rpartition("/")[2]
    (content,) = DOCUMENT["components"]["responses"][reference]["content"].values()
    return content["schema"]["properties"]["code"]["enum"]


def owner_of(whose, caller):
    """Return the owner of the resource that this caller requests."""
    if whose == "own":
        return CUSTOMERS[0] if caller in {"anonymous", LOGGED_OUT} else caller
    return CUSTOMERS[1] if caller != CUSTOMERS[1] else CUSTOMERS[0]


def test_every_operation_has_its_case():
    originals = {operation.get("x-alias-of", name) for name, (_, _, operation) in OPERATIONS.items()}
    assert originals == set(CASES), "add the operation to CASES in tests/e2e/access.py"


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_caller_gets_the_expected_response(name, world, http):
    method, path, operation = OPERATIONS[name]
    case = case_of(name)
    wrong = []
    for caller in CALLERS:
        for whose in case.whose:
            expected = case.expected(caller, whose)
            response = send(http, world, case, method, path, caller, whose, fresh=expected == OK)
            if not fits(response, expected, operation):
                text = response.text[:200] if response.is_stream_consumed else "a stream"
                wrong.append(f"{caller}, {whose}: {response.status_code} {text}, not {expected}")
    assert wrong == []


def send(http, world, case, method, path, caller, whose, *, fresh):
    """Send one request. A request that is expected to succeed may change the resource, so it needs a `fresh` one."""
    thing = None
    if whose == "missing":
        thing = case.missing()
    elif case.thing:
        is_product = case.thing.__name__ == "_product_of"
        thing = world.thing(case, whose if is_product else owner_of(whose, caller), fresh=fresh)
    url = re.sub(r"\{\w+\}", str(thing), path)
    # If the path has no parameter, the body contains the resource.
    body = case.body(thing if thing and url == path else world) if case.body else None
    headers, content = world.headers(caller), {"json": body}
    if case.file:
        headers, content = headers | {"Content-Type": "text/csv"}, {"content": case.file}
    with http.stream(method, url, headers=headers, **content) as response:
        if response.headers.get("content-type") != EVENT_STREAM:  # which has no end
            response.read()
    return response


def fits(response, expected, operation):
    if str(response.status_code) not in operation["responses"]:
        return False
    if expected == OK:
        return response.is_success
    status = ANONYMOUS if expected == REVOKED else expected
    if response.status_code != status:
        return False
    code = response.json()["code"]
    return code in codes_of(operation, status) and expected in {status, code}


def test_lists_contain_only_resources_of_the_caller(world, http):
    for path, field in (("/orders", "user_id"), ("/payments", "user_id")):
        for caller in CUSTOMERS:
            items = http.get(f"{path}?limit=100", headers=world.headers(caller)).json()["items"]
            assert {item[field] for item in items} == {world.sessions[caller]["user"]["id"]}, (path, caller)
    notifications = {
        caller: {item["id"] for item in http.get("/notifications", headers=world.headers(caller)).json()["items"]}
        for caller in CUSTOMERS
    }
    assert all(notifications.values())
    assert not notifications["ayse"] & notifications["burak"]


@pytest.mark.parametrize("path", ["/products?only_active=false", "/orders?user_id={user}"])
def test_filters_of_the_administrator_are_refused_to_others(path, world, http):
    url = path.format(user=world.sessions["burak"]["user"]["id"])
    assert [http.get(url, headers=world.headers(caller)).status_code for caller in CALLERS] == [401, 403, 403, 200, 401]


def test_a_filter_finds_no_resource_of_another_user(world, http):
    url = f"/payments?order_id={world.orders['burak']}"
    assert http.get(url, headers=world.headers("ayse")).json()["items"] == []


@pytest.mark.parametrize("name", WITH_BODY)
def test_unknown_fields_are_refused(name, world, http):
    """Mass assignment: a field that the schema of the body does not have is refused by its name."""
    method, path, operation = OPERATIONS[name]
    schema, example = body_of(operation)
    url = re.sub(r"\{\w+\}", world.tea["id"], path)
    for forbidden, value in FORBIDDEN_FIELDS.items():
        for field, body in bodies_with(schema, example, forbidden, value):
            response = http.request(method, url, json=body, headers=world.headers("admin"))
            assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR"), (
                forbidden,
                response.text,
            )
            assert {"field": field, "message": "is not a known field"} in response.json()["errors"]


def bodies_with(schema, example, forbidden, value):
    """Yield (path of the field, body): the example with the field added at the top, and in the objects of each list."""
    if forbidden not in schema["properties"]:
        yield forbidden, {**example, forbidden: value}
    for name, kind in schema["properties"].items():
        reference = kind.get("items", {}).get("$ref", "").rpartition("/")[2]
        inner = DOCUMENT["components"]["schemas"].get(reference, {})
        if "properties" in inner and forbidden not in inner["properties"]:
            first, *rest = example[name]
            yield f"{name}[0].{forbidden}", {**example, name: [{**first, forbidden: value}, *rest]}


def body_of(operation):
    content = operation["requestBody"]["content"]["application/json"]
    return DOCUMENT["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]], content["example"]
