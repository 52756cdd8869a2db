"""Hooks of schemathesis. They log in as the user of FUZZ_EMAIL, keep requests from changing the seed data, and count
responses. False positives of its checks are filtered here, case by case.
"""

import atexit
import json
import os
import re
from collections import Counter
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import RejectedPositiveData

URL = os.environ["FUZZ_URL"]
LOGIN = {"email": os.environ["FUZZ_EMAIL"], "password": os.environ["FUZZ_PASSWORD"]}
COUNTS = Path(os.environ["FUZZ_COUNTS"])
TOKEN_SECONDS = 600  # less than its lifetime of 900
# The hooks use another address, because failed logins can block the address of the requests.
OWN_ADDRESS = "127.0.0.2"
# The schema allows these values, but the API must refuse them: a cursor of another list, 5.0 as a whole number, and
# values that violate rules about several fields or about existing data. If-Match and If-None-Match are here because
# schemathesis removes the quotes of entity tags, and url because the name in it must exist.
FIELDS_BEYOND_SCHEMAS = {"cursor", "If-Match", "If-None-Match", "url"}
WORDS_BEYOND_SCHEMAS = re.compile(
    "must be a whole number|the order must not cost more than .*|at most [0-9]+ of product .*, not [0-9]+"
    "|this product's sku is .*|would leave more than .* on hand.*|state either `ids` or `group`"
    "|is not one of GET /admin/dead-letters/groups"
)

MONEY = re.compile(r"[0-9]{1,10}(\.[0-9]{1,2})?")

counted: Counter = Counter()
products: list[str] = []  # products of the seed
accounts: list[str] = []  # accounts registered by generated requests


@schemathesis.auth(refresh_interval=TOKEN_SECONDS)
class Session:
    """Logs in again before the access token expires."""

    def get(self, _case, _context):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=OWN_ADDRESS), timeout=30) as client:
            session = client.post(f"{URL}/users/login", json=LOGIN).raise_for_status().json()
        products[:] = products or [item["id"] for item in httpx.get(f"{URL}/products", timeout=30).json()["items"]]
        return session["access_token"]

    def set(self, case, token, _context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}


@schemathesis.serializer("text/csv", "application/x-ndjson")
def serialize_file(_context, value):
    """Send any text as the file of an import."""
    return str(value).encode(errors="replace")


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Replace random product ids in orders by existing ones. Redirect changes of seed rows to other ids.

    Otherwise an administrator could remove their own role, or deactivate themselves, and all later requests would fail.
    """
    ids = case.path_parameters or {}
    if _is_id(ids.get("user_id")):
        ids["user_id"] = accounts[-1] if accounts else str(uuid4())
    if case.method.upper() != "GET" and ids.get("product_id") in products:
        ids["product_id"] = str(uuid4())
    items = case.body.get("items") if isinstance(case.body, dict) else None
    if products and isinstance(items, list):
        _use_existing_products(case.body, [item for item in items if isinstance(item, dict)])


@schemathesis.hook
def after_call(_context, case, response):
    """Count the response."""
    counted[f"{case.method.upper()} {case.path} {response.status_code}"] += 1
    if case.path == "/users/register" and response.status_code == httpx.codes.CREATED:
        accounts.append(response.json()["user"]["id"])


@schemathesis.hook
def filter_failure(_context, failure, case, response):
    """Return whether the failure is real. It is not if no reason of the refusal can be expressed in a JSON Schema.

    Nor is an accepted file of an import: what is wrong in its rows is in the body of the response.
    """
    if isinstance(failure, AcceptedNegativeData):
        return not case.path.endswith("/import")
    if not isinstance(failure, RejectedPositiveData):
        return True
    errors = response.json().get("errors", [])
    return not errors or any(_is_expressible(error) for error in errors)


def _use_existing_products(body, items):
    """Put existing products into an order. Every second order states no price, because a random price is wrong."""
    for number, item in enumerate(items):
        if _is_id(item.get("product_id")):
            item["product_id"] = products[(number + len(items)) % len(products)]
    if counted.total() % 2:
        for part in (body, *items):
            for name in ("total_amount", "price_snapshot"):
                if isinstance(part.get(name), str) and MONEY.fullmatch(part[name]):
                    del part[name]


def _is_expressible(error):
    return not WORDS_BEYOND_SCHEMAS.fullmatch(error["message"]) and error["field"] not in FIELDS_BEYOND_SCHEMAS


def _is_id(value):
    try:
        return bool(UUID(value))
    except (ValueError, TypeError, AttributeError):
        return False


@atexit.register
def write_counts():
    COUNTS.write_text(json.dumps(counted))
