"""Reads of products through the caches: a stampede is one read, and no read is older than the last change.

STALENESS_SECONDS=60 makes the race longer (`make staleness`).
"""

import os
import time

import eventlet
import httpx

from catalog import queries
from tests.service.gateway.responses import ok
from tests.support import TEST_TIMEOUT_SECONDS

CALLERS = 200
RACE_SECONDS = float(os.environ.get("STALENESS_SECONDS", "2"))
READERS, PRODUCTS = 4, 3
MOST_STALE_SECONDS = 1.0


def counting(monkeypatch, name):
    """Count the calls of a query; each takes a while, so that the others arrive meanwhile."""
    original, calls = getattr(queries, name), []

    def slow(*args):
        calls.append(args)
        eventlet.sleep(0.2)
        return original(*args)

    monkeypatch.setattr(queries, name, slow)
    return calls


def at_once(api, path, headers=()):
    address = str(api.base_url)

    def get(_):
        return httpx.get(address + path, headers=dict(headers), timeout=TEST_TIMEOUT_SECONDS, verify=False).json()

    return list(eventlet.GreenPool(CALLERS).imap(get, range(CALLERS)))


def test_a_stampede_reads_the_database_once(api, product, monkeypatch):
    calls = counting(monkeypatch, "get_product")
    path = f"/products/{product['id']}"
    assert {one["version"] for one in at_once(api, path)} == {product["version"]}
    assert len(calls) == 1


def test_a_stampede_on_a_list_reads_the_database_once(api, product, monkeypatch):
    calls = counting(monkeypatch, "list_products")
    pages = at_once(api, "/products?sort=price&limit=5")
    assert {page["items"][0]["id"] for page in pages} == {product["id"]}
    assert len(calls) <= 2  # one more if the calls arrive on both sides of the end of the first read


def test_a_customer_shares_no_read_with_an_administrator(api, admin, product, monkeypatch):
    ok(api.patch(f"/products/{product['id']}", json={"is_active": False}, headers=admin))
    counting(monkeypatch, "get_product")
    path = f"/products/{product['id']}"
    of_admin = eventlet.spawn(lambda: api.get(path, headers=admin).status_code)
    eventlet.sleep(0.05)
    assert api.get(path).status_code == 404
    assert of_admin.wait() == 200


def test_reads_race_with_changes(api, admin):
    """A read that begins after the response to a change shows this change, or a later one."""
    made = [
        ok(api.post("/products", json={"sku": f"R-{n}", "name": "a", "price": "1.00"}, headers=admin), 201)
        for n in range(PRODUCTS)
    ]
    changed = {one["id"]: {1: time.monotonic()} for one in made}
    end, stale, reads = time.monotonic() + RACE_SECONDS, [0.0], [0]

    def write(product_id):
        with httpx.Client(base_url=str(api.base_url), timeout=TEST_TIMEOUT_SECONDS, verify=False) as client:
            number = 0
            while time.monotonic() < end:
                number += 1
                response = client.patch(f"/products/{product_id}", json={"name": f"n{number}"}, headers=admin)
                changed[product_id][ok(response)["version"]] = time.monotonic()
                eventlet.sleep(0.01)

    def read(path, versions_of):
        with httpx.Client(base_url=str(api.base_url), timeout=TEST_TIMEOUT_SECONDS, verify=False) as client:
            while time.monotonic() < end:
                began = time.monotonic()
                for product_id, version in versions_of(ok(client.get(path))):
                    later = changed[product_id].get(version + 1)
                    stale.append(began - later if later is not None and later < began else 0.0)
                    reads[0] += 1

    def of_one(found):
        return [(found["id"], found["version"])]

    def of_list(page):
        return [(one["id"], one["version"]) for one in page["items"]]

    greenlets = [eventlet.spawn(write, one["id"]) for one in made]
    greenlets += [eventlet.spawn(read, f"/products/{one['id']}", of_one) for one in made for _ in range(READERS)]
    greenlets += [eventlet.spawn(read, "/products", of_list) for _ in range(READERS)]
    for greenlet in greenlets:
        greenlet.wait()
    changes = sum(map(len, changed.values()))
    print(f"{reads[0]} reads, {changes} changes; the longest staleness is {max(stale) * 1000:.1f} ms")
    assert reads[0] > 10
    assert max(stale) < MOST_STALE_SECONDS
