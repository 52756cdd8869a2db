"""Locks that somebody holds in PostgreSQL: on a row, on a table, or by a transaction that does nothing.

Each connection has a deadline of its own, so no lock outlives its fault, even if this process is killed.
"""

import random
import time
from contextlib import contextmanager

from contracts.services import SERVICES
from qa.chaos.crash_points import HANDLERS
from qa.chaos.faults import FaultNotInjected
from qa.chaos.slow_faults import NOTHING, Effect, SlowFault

NOBODY = frozenset()
TABLES = {
    "users": "users",
    "catalog": "products",
    "orders": "orders",
    "inventory": "stock",
    "payments": "payments",
    "notifications": "notifications",
}
MARGIN_SECONDS = 60.0  # until the server ends the transaction, if this process does not
FOUND_WITHIN_SECONDS = 5.0
OLD_ROWS = 50
WAITING = """
    SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()
    AND (database IS NULL OR database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


@contextmanager
def holding(sandbox, database, statement, parameters=None, isolation=""):
    """A transaction that has executed the statement, which must find a row; yields its cursor."""
    with sandbox.superuser(database, MARGIN_SECONDS) as connection, connection.cursor() as cursor:
        deadline = time.monotonic() + FOUND_WITHIN_SECONDS
        while True:
            cursor.execute(f"BEGIN {isolation}")
            cursor.execute(statement, parameters)
            if cursor.description is None or cursor.fetchall():
                break
            cursor.execute("ROLLBACK")
            if time.monotonic() > deadline:
                raise FaultNotInjected(f"no row to lock in {database}: {statement}")
            time.sleep(0.005)
        yield cursor
        cursor.execute("ROLLBACK")


def _effect(what, affects, hold, exclusive=()):
    """`hold` returns the block in which the lock is held."""

    @contextmanager
    def broken():
        with hold() as cursor:
            yield lambda: _waiting(cursor)

    return Effect(what, affects, broken, exclusive=exclusive)


def _waiting(cursor):
    cursor.execute(WAITING)
    return f"{cursor.fetchone()[0]} waited at its end"


# Rows: everything but the one order or product goes on.


def pending_payment(sandbox, chance: random.Random) -> Effect:
    """The row of a payment whose provider takes its time."""

    @contextmanager
    def hold():
        order = _place(sandbox, chance, f"pm_slow_{int(1000 * sandbox.slow_seconds[1])}")
        statement = "SELECT status FROM payments WHERE order_id = %s FOR UPDATE"
        with holding(sandbox, "payments", statement, [order]) as cursor:
            yield cursor

    return _effect("the row of a payment locked", NOBODY, hold)


def undecided_order(sandbox, chance: random.Random) -> Effect:
    """The row of an order that has just been accepted."""

    @contextmanager
    def hold():
        order = _place(sandbox, chance, None)
        with holding(sandbox, "orders", "SELECT status FROM orders WHERE id = %s FOR UPDATE", [order]) as cursor:
            yield cursor

    return _effect("the row of an order locked", NOBODY, hold)


def stock(sandbox, chance: random.Random) -> Effect:
    """The stock of a product that the load orders, and the probes do not."""
    product = chance.choice(sandbox.load.catalogue.selling[1:])["id"]
    statement = "SELECT on_hand FROM stock WHERE product_id = %s FOR UPDATE"
    return _effect(
        f"the stock of product {product} locked",
        NOBODY,
        lambda: holding(sandbox, "inventory", statement, [product]),
    )


def _place(sandbox, chance, payment_method):
    """Place an order of its own; returns its id."""
    load = sandbox.load
    client = sandbox.customer.new_connection(load.responses)
    try:
        product = chance.choice(load.catalogue.selling[1:])["id"]
        order = load.place_alone(client, {product: 1}, payment_method)
    finally:
        client.close()
    if order.order_id is None:
        raise FaultNotInjected(f"no order to lock: {order.status} {order.response}")
    return order.order_id


# Tables


def table(service):
    """The most important table of a service: nobody reads or writes it."""
    statement = f"LOCK TABLE {TABLES[service]} IN ACCESS EXCLUSIVE MODE"

    def plan(sandbox, _chance):
        return _effect(
            f"the table {TABLES[service]} of {service} locked",
            frozenset({service}),
            lambda: holding(sandbox, service, statement),
            exclusive=(f"table of {service}",),
        )

    return plan


# Long transactions


def snapshot(sandbox, chance: random.Random) -> Effect:
    """A transaction that keeps its snapshot, so that no row that dies meanwhile can be removed."""
    service = sandbox.next_of("snapshot", SERVICES, chance)
    statement = f"SELECT count(*) FROM {TABLES[service]}"
    return _effect(
        f"a transaction with a snapshot of {service} is idle",
        NOBODY,
        lambda: holding(sandbox, service, statement, isolation="ISOLATION LEVEL REPEATABLE READ"),
    )


def old_rows(sandbox, chance: random.Random) -> Effect:
    """An idle transaction that has locked rows which only the retention needs."""
    service = sandbox.next_of("old rows", HANDLERS, chance)
    statement = f"SELECT 1 FROM inbox LIMIT {OLD_ROWS} FOR UPDATE SKIP LOCKED"
    return _effect(
        f"an idle transaction holds rows of the inbox of {service}",
        NOBODY,
        lambda: holding(sandbox, service, statement),
    )


FAULTS = [
    SlowFault("the row of a pending payment is locked", pending_payment, NOTHING),
    SlowFault("the row of an undecided order is locked", undecided_order, NOTHING),
    SlowFault("the stock of one product is locked", stock, NOTHING),
    *(SlowFault(f"a table of {service} is locked", table(service), service) for service in SERVICES),
    SlowFault("a transaction keeps its snapshot", snapshot, NOTHING),
    SlowFault("an idle transaction holds old rows", old_rows, NOTHING),
]
