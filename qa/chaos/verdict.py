"""What a run is judged by: the books of all services, what the clients were told, and the provider's own side."""

import time
from collections import Counter, defaultdict

import sqlalchemy

from qa.chaos.load import ABUNDANT, NUMBERS, SCARCE
from qa.chaos.provider import Memory
from qa.support.consistency import DECIDED_FOR, Check, await_rest

ORDERS = "SELECT id, status, cancel_reason, total_amount, stock_status, payment_status FROM orders"
LINES = "SELECT order_id, product_id, quantity FROM order_items"
# Of the orders' own events only: a fault publishes those of others again as new facts, which the timeline records.
TWICE = """
    SELECT order_id, event FROM timeline WHERE service = 'orders' GROUP BY order_id, event HAVING count(*) > 1
"""
TIMELINE = "SELECT at, service, event, event_id, data FROM timeline WHERE order_id = :order ORDER BY id"


def undecided(arena):
    """How many orders are not decided yet."""
    return read(arena.database_urls["orders"], "SELECT count(*) AS count FROM orders WHERE status = 'CREATED'")[0][
        "count"
    ]


def await_decided(arena, healed_at, seconds=120.0):
    """Wait until every order is decided; how long that is after `healed_at`, a time.monotonic()."""
    while undecided(arena) and time.monotonic() - healed_at < seconds:
        time.sleep(0.2)
    return time.monotonic() - healed_at


def judge(arena, load, timeout=90.0):
    """Every invariant, once the suite is at rest or `timeout` seconds are over."""
    books = await_rest(arena.database_urls, timeout, pause=1.0)
    orders_url = arena.database_urls["orders"]
    orders = {str(row["id"]): row for row in read(orders_url, ORDERS)}
    lines = defaultdict(Counter)
    for row in read(orders_url, LINES):
        lines[str(row["order_id"])][str(row["product_id"])] += row["quantity"]
    twice = [f"{row['order_id']} {row['event']}" for row in read(orders_url, TWICE)]
    return [
        *books,
        *_existence(load, orders, lines),
        Check("a command that was answered with success holds", _broken_promises(load, orders)),
        Check("no more sold of a product than there was", _oversold(load, orders, lines)),
        Check("no step of an order taken twice", twice),
        *_money(orders, Memory(arena.folder).accounts()),
        Check("no answer but 503 and 504 beyond 499", [key for key in load.answers if _is_wrong(key)]),
        Check("no answer that a client should not get", list(load.odd)),
    ]


def _existence(load, orders, lines):
    """Which orders there are is told by the numbers in their lines."""
    low, high = load.catalogue.low["id"], load.catalogue.high["id"]
    made = defaultdict(list)
    for order in orders:
        made[(lines[order][high] - 1) * NUMBERS + lines[order][low] - 1].append(order)
    asked = {one.number: one for one in load.asked}
    lost = [one.order_id for one in load.accepted if one.order_id not in orders]
    double = [" ".join(found) for found in made.values() if len(found) > 1]
    unasked = [
        order
        for number, found in made.items()
        for order in found
        if number not in asked or asked[number].order_id not in {None, order}
    ]
    return [
        Check("no accepted order lost", lost),
        Check("no order made twice", double),
        Check("no order that no client asked for", unasked),
    ]


def _broken_promises(load, orders):
    allowed = {"cancel": {"CANCELLED"}, "ship": {"SHIPPED", "DELIVERED"}, "deliver": {"DELIVERED"}}
    return [
        f"{one.order_id} {command}"
        for one in load.accepted
        for command in one.done
        if one.order_id in orders and orders[one.order_id]["status"] not in allowed[command]
    ]


def _oversold(load, orders, lines):
    """From what the admin put in and what orders say: no number of inventory's own is believed."""
    sold = Counter()
    for order, row in orders.items():
        if row["status"] in DECIDED_FOR:
            sold += lines[order]
    there = {product["id"]: ABUNDANT for product in load.catalogue.all}
    there |= {product["id"]: SCARCE + load.restocked[product["id"]] for product in load.catalogue.scarce}
    there[load.catalogue.without_stock["id"]] = 0
    return [product for product, count in sold.items() if count > there[product]]


def _money(orders, accounts):
    """The provider knows nothing of orders' statuses: what it took and gave back must fit them."""
    charged = {order for order, (_, moved) in accounts.items() if "capture" in moved and "refund" not in moved}
    held = {order for order, (_, moved) in accounts.items() if not moved}
    due = {order for order, row in orders.items() if row["status"] in DECIDED_FOR}
    wrong_amount = [order for order in charged & due if accounts[order][0] != str(orders[order]["total_amount"])]
    return [
        Check("provider: nobody charged without an order that stands", sorted(charged - due)),
        Check("provider: every order that stands is charged", sorted(due - charged)),
        Check("provider: charged is the order's total", wrong_amount),
        Check("provider: nothing still held of a cancelled order", sorted(held - due)),
    ]


def _is_wrong(key):
    return key[:1] == "5" and key[:3] not in {"503", "504"}


def story(arena, order):
    """An order and its timeline, for a person; empty if there is no such order."""
    url = arena.database_urls["orders"]
    rows = [row for row in read(url, ORDERS) if str(row["id"]) == order]
    if not rows:
        return ""
    told = [f"  order {order}: " + ", ".join(f"{key} {value}" for key, value in rows[0].items() if key != "id")]
    told += [
        f"    {row['at']:%H:%M:%S.%f} {row['service']:<14}{row['event']:<28}{row['event_id']} {str(row['data'])[:100]}"
        for row in read(url, TIMELINE, order=order)
    ]
    return "\n".join(told)


def read(url, statement, **parameters):
    """The rows of a query, as dicts."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": 5})
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sqlalchemy.text(statement), parameters).mappings()]
