"""Invalid and hostile input to the real services: no 5xx, no internal details, and a 4xx that names the field."""

import itertools
import json
import re

import pytest

from catalog.service import CatalogService
from inventory.service import InventoryService
from orders.service import OrdersService
from payments.service import PaymentsService
from tests.support import eventually
from users.service import UsersService

PASSWORD = "correct horse 7 battery"
ID = "0190a6b2-0000-7000-8000-000000000001"
INTERNALS = re.compile(
    r'Traceback|File "|line \d+, in|psycopg|sqlalchemy|nameko|pydantic|eventlet|rabbitmq|amqp|redis|127\.0\.0\.1'
    r"|SELECT |/home|/work",
    re.IGNORECASE,
)


class Raw(str):
    """JSON text that json.dumps would not produce."""

    __slots__ = ()


VALUES = {
    "null": None,
    "true": True,
    "an empty string": "",
    "an empty list": [],
    "an empty object": {},
    "a list of lists": [[]],
    "an object with a constructor": {"__proto__": {"is_admin": True}},
    "a negative number": -1,
    "a fraction": 1.5,
    "almost a whole number": 1.0000000000000002,
    "a huge float": 1e308,
    "infinity, spelt as a number": Raw("1e999"),
    "a number of 500 digits": Raw("9" * 500),
    "a number of 5000 digits": Raw("9" * 5000),
    "64 bits and more": 2**64,
    "NaN": Raw("NaN"),
    "Infinity": Raw("-Infinity"),
    "hexadecimal": Raw("0x10"),
    "minus zero": Raw("-0"),
    "a number in a string": "1",
    "a number with an exponent, in a string": "1e3",
    "NaN in a string": "NaN",
    "other digits": "١٢٣",
    "NUL": Raw('"a\\u0000b"'),
    "an unpaired surrogate": Raw('"\\ud800"'),
    "two surrogates in the wrong sequence": Raw('"\\udc00\\ud800"'),
    "a noncharacter": Raw('"\\uffff"'),
    "right to left": "\u202eevil",
    "zero width": "a\u200b\u200d\ufeffb",
    "many accents": "e" + "\u0301" * 150,
    "an emoji": "👩‍👩‍👧‍👦",
    "SQL": "'; DROP TABLE products; --",
    "SQL with a backslash": "\\' OR 1=1 --",
    "a wildcard": "%_%",
    "a header": "a\r\nSet-Cookie: a=b",
    "HTML": "<script>alert(1)</script>",
    "a template": "${jndi:ldap://x/a}{{7*7}}%(config)s{0.__class__}",
    "a path": "../../../../etc/passwd",
    "a long string": "x" * 20_000,
    "a long list": [1] * 5000,
    "nested": Raw("[" * 15 + "]" * 15),
    "nested too deep": Raw("[" * 5000 + "]" * 5000),
    "nested and never closed": Raw('{"a":' * 5000),
}
LINE = {"product_id": ID, "quantity": 1}
BODIES = [
    ("POST", "/users/register", {"email": "bad@example.com", "password": PASSWORD}),
    ("POST", "/users/login", {"email": "boss@example.com", "password": PASSWORD}),
    ("POST", "/users/refresh-token", {"refresh_token": "r"}),
    ("POST", "/users/logout", {"refresh_token": "r"}),
    ("POST", "/users/verify-token", {"token": "t"}),
    ("PATCH", f"/users/{ID}", {"roles": ["customer"], "is_active": True}),
    ("POST", "/products", {"sku": "BAD-1", "name": "n", "price": "1.00", "description": "d", "is_active": True}),
    ("PATCH", f"/products/{ID}", {"sku": "BAD-1", "name": "n", "price": "1.00"}),
    ("POST", "/orders", {"items": [LINE], "total_amount": "1.00"}),
    ("POST", "/inventory", {"product_id": ID, "product_sku": "BAD-1", "quantity": 1}),
    ("PUT", f"/inventory/{ID}", {"quantity": 1}),
    ("POST", f"/inventory/{ID}/adjustments", {"delta": 1, "reason": "r"}),
]
QUERIES = {
    "/products": ["limit", "cursor", "search", "sku", "min_price", "max_price", "only_active", "sort", "colour"],
    "/orders": ["limit", "cursor", "status", "created_after", "created_before", "user_id"],
    "/payments": ["order_id", "status"],
    "/inventory": ["limit", "cursor"],
}
PATHS = [
    "/orders/{}", "/products/{}", "/payments/order/{}", "/inventory/{}/movements", "/users/me/{}", "/{}",
    "/orders/{}/cancel",
]  # fmt: skip
IN_URLS = [
    "", "%00", "a%00b", "%0d%0aSet-Cookie:%20a=b", "%0a", "..%2f..%2fetc%2fpasswd", "..", ".", "%2e%2e", "%ff",
    "%ed%a0%80", "%c0%ae",
    "%", "%zz", "%u0041", "'%20OR%201=1--", "-1", "0", "99999999999999999999", "1.5", "1e9", "NaN", "true", "null",
    "[]", "%7B%7D", "x" * 3000,
    ID + "0", ID[:-1], "{" + ID + "}", "urn:uuid:" + ID, ID.upper(), ID.replace("-", ""), "%E2%80%AE",
    "%F0%9F%98%80", "2026-01-31",
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00%2B23:59", "2026-02-30T00:00:00Z", "\u0661", "eyJpZCI6MX0",
    "AAAA", "%25%00%25",
]  # fmt: skip
HEADERS = [
    {"X-Request-ID": "a" * 5000}, {"X-Request-ID": "a%0d%0ab"}, {"X-Request-ID": "é\u202e".encode()},
    {"X-Request-ID": "' OR 1=1--"},
    {"Idempotency-Key": ""}, {"Idempotency-Key": "a b"}, {"Idempotency-Key": "x" * 256},
    {"Idempotency-Key": "é".encode()},
    {"traceparent": "00-" + "0" * 32 + "-0-01"}, {"traceparent": "x" * 5000}, {"Authorization": "Bearer"},
    {"Authorization": "Basic YTpi"},
    {"Authorization": "Bearer " + "." * 5000}, {"Authorization": "x" * 7000}, {"Accept": ";" * 500},
    {"Accept": "*/*;q=x"}, {"Accept": ","},
    {"Content-Type": "application/json; charset=utf-16"}, {"Content-Type": "multipart/form-data"},
    {"Content-Encoding": "gzip"},
    {"If-None-Match": '"' * 500}, {"If-Match": "W/\\\\"}, {"Origin": "null"}, {"Range": "bytes=0-,-"},
    {"Expect": "200-maybe"},
    {"Host": ""}, {"Host": "attacker.example"}, {"X-Forwarded-For": "127.0.0.1"},
    {"X-HTTP-Method-Override": "DELETE"},
]  # fmt: skip


def encode(value):
    """JSON, with Raw texts inserted unchanged."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{encode(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encode, value)) + "]"
    return json.dumps(value)


def variants(body):
    """Each field of `body` with each value: (field, title of the value, body, value)."""
    for name in body:
        for title, value in VALUES.items():
            yield name, title, {**body, name: value}, value
    if "items" in body:
        for name in (*LINE, "price_snapshot", "product_sku"):
            for title, value in VALUES.items():
                yield f"items[0].{name}", title, {"items": [{**LINE, name: value}]}, value


@pytest.fixture
def api(gateway, run_service):
    for service in (UsersService, CatalogService, OrdersService, InventoryService, PaymentsService):
        run_service(service)
    api = gateway()
    eventually(lambda: api.get("/users/me").status_code == 401)
    return api


@pytest.fixture
def admin(api, caller):
    account = {"email": "boss@example.com", "password": PASSWORD}
    user = api.post("/users/register", json=account).json()["user"]
    caller.users.set_roles(user["id"], ["customer", "admin"])
    return {"Authorization": f"Bearer {api.post('/users/login', json=account).json()['access_token']}"}


def fault(response):
    """What is wrong with a response; None if nothing is."""
    if response.status_code >= 500 or "set-cookie" in response.headers:
        return "a defect, or an injected header"
    return fault_of_refusal(response, response.json()) if response.status_code >= 400 else None


def fault_of_refusal(response, body):
    # A response may repeat what the client sent, so only the texts that we add are checked.
    if INTERNALS.search(body["detail"]) or INTERNALS.search(str(body.get("errors", ""))):
        return "reveals internals"
    if body["code"] == "VALIDATION_ERROR" and response.request.content and not body.get("errors"):
        return "names no field"
    if response.headers["content-type"] != "application/problem+json" or body["status"] != response.status_code:
        return "no problem"
    return None


def test_bodies(api, admin):
    faults = []
    for method, path, body in BODIES:
        for field, title, tried, value in variants(body):
            headers = {**admin, "Content-Type": "application/json"}
            response = api.request(method, path, content=encode(tried).encode(), headers=headers)
            wrong = fault(response)
            errors = response.json().get("errors", []) if response.status_code == 400 else []
            if not wrong and errors and not any(error["field"].startswith(field.split("[")[0]) for error in errors):
                wrong = "names another field"
            if not wrong and response.status_code < 300 and field in {"name", "description"}:
                wrong = None if response.json()[field] == value else "changed the value"
            if wrong:
                faults.append((wrong, method, path, field, title, response.status_code, response.text[:200]))
    assert faults == []


NO_JSON = [b"", b"null", b"[]", b"1", b'"a"', b"{", b"{}}", b'{"a":1,}', b"{'a':1}", b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}", b"{} {}",
     b'{"items": [], "items": []}', b'{"a": 1}' * 5000, b"[" * 60_000, b'{"a":' * 10_000, b"\x00",
     b"\x1f\x8b\x08\x00", b'{"\\ud800": 1}',
     b'{"__class__": 1, "": 2, "\\u0000": 3}', b"{" + b",".join(b'"a%d":1' % n for n in range(6000)) + b"}",
     b" " * 70_000]  # fmt: skip


def test_invalid_json(api, admin):
    for path, content in itertools.product(("/orders", "/products", "/users/login"), NO_JSON):
        response = api.post(path, content=content, headers={**admin, "Content-Type": "application/json"})
        assert response.status_code in {400, 413}, response.text
        assert fault(response) in {None, "names no field"}


def test_queries_paths_and_headers(api, admin):
    faults = []

    def send(method, url, headers, **content):
        response = api.request(method, url, headers=headers, **content)
        wrong = fault(response)
        if wrong and wrong != "names no field":
            faults.append((wrong, method, url[:100], headers, response.status_code, response.text[:200]))

    for path, names in QUERIES.items():
        for name in names:
            for value in IN_URLS:
                send("GET", f"{path}?{name}={value}", admin)
                send("GET", f"{path}?{name}={value}&{name}=2", admin)
    for path in PATHS:
        for value in IN_URLS:
            send("POST" if path.endswith("cancel") else "GET", path.format(value), admin)
    for headers in HEADERS:
        send("POST", "/orders", {**admin, **headers}, json={"items": [LINE]})
        send("GET", "/products", headers)
    assert faults == []
    assert api.get("/products").status_code == 200
