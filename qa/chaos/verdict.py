"""The invariants of a run: the consistency checks, the responses that clients got, and the provider's records."""

import time
from collections import Counter, defaultdict
from functools import cache

import sqlalchemy

from qa.chaos.load import ABUNDANT, NUMBERS, SCARCE
from qa.chaos.provider_records import Memory
from qa.support.consistency import DECIDED_FOR, Check, await_rest

ORDERS = "SELECT id, status, cancel_reason, total_amount, stock_status, payment_status FROM orders"
LINES = "SELECT order_id, product_id, quantity FROM order_items"
# Only events of orders: a fault publishes other services' events under new ids, and the timeline records them again.
TWICE = """
    SELECT order_id, event FROM timeline WHERE service = 'orders' GROUP BY order_id, event HAVING count(*) > 1
"""
TIMELINE = "SELECT at, service, event, event_id, data FROM timeline WHERE order_id = :order ORDER BY id"


def undecided(sandbox):
    """The number of undecided orders."""
    return read(sandbox.database_urls["orders"], "SELECT count(*) AS count FROM orders WHERE status = 'CREATED'")[0][
        "count"
    ]


def await_decided(sandbox, healed_at, seconds):
    """Wait until every order is decided; returns the seconds since `healed_at`, a time.monotonic()."""
    while undecided(sandbox) and time.monotonic() - healed_at < seconds:
        time.sleep(0.2)
    return time.monotonic() - healed_at


def judge(sandbox, load, timeout, told_within=0.0):
    """Return all checks when the suite is at rest, or after `timeout` seconds.

    Webhooks, mails and streams may be `told_within` seconds late.
    """
    checks = await_rest(sandbox.database_urls, timeout, pause=1.0)
    orders_url = sandbox.database_urls["orders"]
    orders = {str(row["id"]): row for row in read(orders_url, ORDERS)}
    lines = defaultdict(Counter)
    for row in read(orders_url, LINES):
        lines[str(row["order_id"])][str(row["product_id"])] += row["quantity"]
    twice = [f"{row['order_id']} {row['event']}" for row in read(orders_url, TWICE)]
    return [
        *checks,
        *_existence(load, orders, lines),
        Check("an acknowledged command is not reverted", _reverted_commands(load, orders)),
        Check("no more sold of a product than was in stock", _oversold(load, orders, lines)),
        Check("no step of an order taken twice", twice),
        *_money(orders, Memory(sandbox.folder).accounts()),
        Check("no status above 499 except 503 and 504", [key for key in load.responses if _is_wrong(key)]),
        Check("no response that a client should not get", list(load.unexpected)),
        *(sandbox.audience.checks(told_within) if sandbox.audience else ()),
    ]


def _existence(load, orders, lines):
    """Compare the requested orders with those in the database, by the numbers in their lines."""
    low, high = load.catalogue.low["id"], load.catalogue.high["id"]
    made = defaultdict(list)
    for order in orders:
        made[(lines[order][high] - 1) * NUMBERS + lines[order][low] - 1].append(order)
    requested = {one.number: one for one in load.requests}
    lost = [one.order_id for one in load.accepted if one.order_id not in orders]
    double = [" ".join(found) for found in made.values() if len(found) > 1]
    unrequested = [
        order
        for number, found in made.items()
        for order in found
        if number not in requested or requested[number].order_id not in {None, order}
    ]
    return [
        Check("no accepted order lost", lost),
        Check("no order made twice", double),
        Check("no order that no client requested", unrequested),
    ]


def _reverted_commands(load, orders):
    allowed = {"cancel": {"CANCELLED"}, "ship": {"SHIPPED", "DELIVERED"}, "deliver": {"DELIVERED"}}
    return [
        f"{one.order_id} {command}"
        for one in load.accepted
        for command in one.done
        if one.order_id in orders and orders[one.order_id]["status"] not in allowed[command]
    ]


def _oversold(load, orders, lines):
    """Compare the units that the admin added with those in orders, without the numbers of inventory."""
    sold = Counter()
    for order, row in orders.items():
        if row["status"] in DECIDED_FOR:
            sold += lines[order]
    there = {product["id"]: ABUNDANT for product in load.catalogue.all}
    there |= {product["id"]: SCARCE + load.restocked[product["id"]] for product in load.catalogue.scarce}
    there[load.catalogue.without_stock["id"]] = 0
    return [product for product, count in sold.items() if count > there[product]]


def _money(orders, accounts):
    """Compare the provider's captures and refunds with the orders' statuses."""
    charged = {order for order, (_, moved) in accounts.items() if "capture" in moved and "refund" not in moved}
    held = {order for order, (_, moved) in accounts.items() if not moved}
    due = {order for order, row in orders.items() if row["status"] in DECIDED_FOR}
    wrong_amount = [order for order in charged & due if accounts[order][0] != str(orders[order]["total_amount"])]
    return [
        Check("provider: only confirmed orders are charged", sorted(charged - due)),
        Check("provider: every confirmed order is charged", sorted(due - charged)),
        Check("provider: the charge is the order's total", wrong_amount),
        Check("provider: no authorisation left of a cancelled order", sorted(held - due)),
    ]


def _is_wrong(key):
    return key[:1] == "5" and key[:3] not in {"503", "504"}


def order_history(sandbox, order):
    """Return an order and its timeline as text, or an empty text if there is no such order."""
    url = sandbox.database_urls["orders"]
    rows = [row for row in read(url, ORDERS) if str(row["id"]) == order]
    if not rows:
        return ""
    lines = [f"  order {order}: " + ", ".join(f"{key} {value}" for key, value in rows[0].items() if key != "id")]
    lines += [
        f"    {row['at']:%H:%M:%S.%f} {row['service']:<14}{row['event']:<28}{row['event_id']} {str(row['data'])[:100]}"
        for row in read(url, TIMELINE, order=order)
    ]
    return "\n".join(lines)


def read(url, statement, **parameters):
    """Return the rows of a query as dicts."""
    with _engine(url).connect() as connection:
        return [dict(row) for row in connection.execute(sqlalchemy.text(statement), parameters).mappings()]


@cache
def _engine(url):
    return sqlalchemy.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 5})
