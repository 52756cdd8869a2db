"""How schemathesis calls the API: as the user that the environment names, sparing what it needs, and counting.

What it takes for a failure and is none is said here too, case by case.
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
from schemathesis.openapi.checks import RejectedPositiveData

URL = os.environ["FUZZ_URL"]
LOGIN = {"email": os.environ["FUZZ_EMAIL"], "password": os.environ["FUZZ_PASSWORD"]}
COUNTS = Path(os.environ["FUZZ_COUNTS"])
TOKEN_SECONDS = 600  # it lives 900
# Not that from which the requests come: when too many of their logins fail, this one still succeeds.
OWN_ADDRESS = "127.0.0.2"
# Rightly refused, though the schema allows it: a cursor is only a list's own, 5.0 is no whole number to us, and some
# rules hold for several fields, or for what is there already, at once. And of entity tags, schemathesis takes off the
# quotes that their pattern demands.
FIELDS_BEYOND_SCHEMAS = {"cursor", "If-Match", "If-None-Match"}
WORDS_BEYOND_SCHEMAS = re.compile(
    "must be a whole number|the order must not cost more than .*|at most [0-9]+ of product .*, not [0-9]+"
    "|this product's sku is .*|would leave more than .* on hand.*"
)

MONEY = re.compile(r"[0-9]{1,10}(\.[0-9]{1,2})?")

counted: Counter = Counter()
products: list[str] = []  # those that were there before
accounts: list[str] = []  # those that were opened by these very requests


@schemathesis.auth(refresh_interval=TOKEN_SECONDS)
class Session:
    """Logs in anew before the access token expires."""

    def get(self, _case, _context):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=OWN_ADDRESS), timeout=30) as client:
            session = client.post(f"{URL}/users/login", json=LOGIN).raise_for_status().json()
        products[:] = products or [item["id"] for item in httpx.get(f"{URL}/products", timeout=30).json()["items"]]
        return session["access_token"]

    def set(self, case, token, _context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Order what can be bought, which chance would not find, and change nothing that was there before.

    Whoever takes their own role away, or has themselves switched off, learns nothing any more.
    """
    ids = case.path_parameters or {}
    if _is_id(ids.get("user_id")):
        ids["user_id"] = accounts[-1] if accounts else str(uuid4())
    if case.method.upper() != "GET" and ids.get("product_id") in products:
        ids["product_id"] = str(uuid4())
    items = case.body.get("items") if isinstance(case.body, dict) else None
    if products and isinstance(items, list):
        _order_what_there_is(case.body, [item for item in items if isinstance(item, dict)])


@schemathesis.hook
def after_call(_context, case, response):
    """Count what was answered."""
    counted[f"{case.method.upper()} {case.path} {response.status_code}"] += 1
    if case.path == "/users/register" and response.status_code == httpx.codes.CREATED:
        accounts.append(response.json()["user"]["id"])


@schemathesis.hook
def filter_failure(_context, failure, _case, response):
    """Keep what is one. Of a refusal, every reason has to be beyond what a schema can say."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    wrong = response.json().get("errors", [])
    return not wrong or any(_is_told_by_schema(error) for error in wrong)


def _order_what_there_is(body, items):
    """Put products into an order that there are; every second one states no price, which would hardly be right."""
    for number, item in enumerate(items):
        if _is_id(item.get("product_id")):
            item["product_id"] = products[(number + len(items)) % len(products)]
    if counted.total() % 2:
        for told in (body, *items):
            for name in ("total_amount", "price_snapshot"):
                if isinstance(told.get(name), str) and MONEY.fullmatch(told[name]):
                    del told[name]


def _is_told_by_schema(error):
    return not WORDS_BEYOND_SCHEMAS.fullmatch(error["message"]) and error["field"] not in FIELDS_BEYOND_SCHEMAS


def _is_id(value):
    try:
        return bool(UUID(value))
    except (ValueError, TypeError, AttributeError):
        return False


@atexit.register
def write_counts():
    COUNTS.write_text(json.dumps(counted))
