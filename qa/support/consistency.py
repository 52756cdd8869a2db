"""Consistency checks over all databases: orders, reservations, stock, payments, notifications, outboxes, dead letters.

`python -m qa.support.consistency` waits until the suite is at rest, prints each check with the number of its
violations, and exits with 1 if there is one. It reads all databases directly, which no service may do: so it is
independent of the comparison that the services make themselves (`make check-consistency`).
"""

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import sqlalchemy

from contracts.services import SERVICES
from deploy.config_file import load
from extensions.runtime.addresses import database_url

SHOWN = 20
DEAD_LETTERS = "no dead letters"
ENDS = {"order.cancelled", "order.delivered"}
DECISIONS = {"order.confirmed", "order.cancelled"}
DECIDED_FOR = {"CONFIRMED", "SHIPPED", "DELIVERED"}
PAID = {"CAPTURED", "PARTIALLY_REFUNDED", "REFUNDED"}

Row = Mapping[str, Any]
Readers = Mapping[str, Callable[[str], list[Row]]]


@dataclass(frozen=True)
class Databases:
    """The contents of all databases, read one after the other: they match only while the suite is at rest."""

    orders: dict[Any, Row]
    order_lines: dict[Any, Counter[Any]]
    steps: dict[Any, list[str]]
    decisions: dict[Any, list[str]]
    reservations: dict[Any, str]
    reserved_lines: dict[Any, Counter[Any]]
    stock: dict[Any, Row]
    movements: dict[Any, list[Row]]
    payments: dict[Any, Row]
    refunds: dict[Any, list[Row]]
    notified: set[tuple[Any, str]]
    outbox: dict[str, int]
    dead_letters: dict[str, list[str]]


@dataclass(frozen=True)
class Check:
    """One invariant, and the ids of the records that violate it."""

    name: str
    ids: list[str] = field(default_factory=list)


def read_databases(urls: Mapping[str, str]) -> Databases:
    """Read everything that the checks need."""
    return _read(_readers(urls))


def _read(query: Readers) -> Databases:
    steps = defaultdict(list)
    for row in query["orders"]("SELECT order_id, event FROM timeline WHERE event LIKE 'order.%' ORDER BY id"):
        steps[row["order_id"]].append(row["event"])
    movements = defaultdict(list)
    for row in query["inventory"]("SELECT * FROM movements ORDER BY entry"):
        movements[row["product_id"]].append(row)
    refunds = defaultdict(list)
    for row in query["payments"]("SELECT * FROM refunds"):
        refunds[row["payment_id"]].append(row)
    return Databases(
        orders={row["id"]: row for row in query["orders"]("SELECT * FROM orders")},
        order_lines=_lines(query["orders"]("SELECT order_id, product_id, quantity FROM order_items")),
        steps=steps,
        decisions=defaultdict(
            list, {key: [event for event in events if event in DECISIONS] for key, events in steps.items()}
        ),
        reservations={
            row["order_id"]: row["status"] for row in query["inventory"]("SELECT order_id, status FROM reservations")
        },
        reserved_lines=_lines(query["inventory"]("SELECT order_id, product_id, quantity FROM reservation_lines")),
        stock={row["product_id"]: row for row in query["inventory"]("SELECT * FROM stock")},
        movements=movements,
        payments={row["order_id"]: row for row in query["payments"]("SELECT * FROM payments")},
        refunds=refunds,
        notified={
            (row["order_id"], row["kind"])
            for row in query["notifications"]("SELECT order_id, kind FROM notifications WHERE order_id IS NOT NULL")
        },
        outbox={service: len(query[service]("SELECT id FROM outbox")) for service in SERVICES},
        dead_letters={
            service: [str(row["id"]) for row in query[service]("SELECT id FROM dead_letters WHERE replayed_at IS NULL")]
            for service in SERVICES
        },
    )


def check(databases: Databases) -> list[Check]:
    """Return every invariant with its violations. Most of them hold only while the suite is at rest."""
    return [
        _orders("order decided", databases, lambda _databases, order: order["status"] != "CREATED"),
        Check("stock never below zero nor below what is reserved", _unsound_stock(databases)),
        Check("one decision, or a confirmation and then a cancellation", _invalid_decisions(databases)),
        Check("no step after a final status", _continued_after_end(databases)),
        Check("reserved stock is that of the RESERVED orders", _reserved_differs(databases)),
        Check("the stock ledger gives the stock", _ledger_differs(databases)),
        Check("stock taken is that of the COMMITTED orders", _taken_differs(databases)),
        _orders("confirmed: all its stock committed", databases, _is_stocked, DECIDED_FOR),
        _orders("confirmed: captured once, exactly its total", databases, _is_paid, DECIDED_FOR),
        Check("refunds are at most what was captured, and all of it where REFUNDED", _refunds_differ(databases)),
        _orders("cancelled: holds no stock", databases, _holds_no_stock, {"CANCELLED"}),
        _orders("cancelled: holds no money", databases, _holds_no_money, {"CANCELLED"}),
        _orders("order has the statuses of its reservation and payment", databases, _has_statuses),
        _orders("customer notified of every step", databases, _is_notified),
        Check("no reservation or payment without an order", _orphans(databases)),
        Check("outbox empty", [f"{service}: {count}" for service, count in databases.outbox.items() if count]),
        Check(DEAD_LETTERS, [f"{name}: {letter}" for name, ids in databases.dead_letters.items() for letter in ids]),
    ]


def await_rest(urls: Mapping[str, str], timeout: float = 60.0, pause: float = 0.5) -> list[Check]:
    """Return the checks as soon as none is violated, or their last state after `timeout` seconds.

    Dead letters stay until an operator replays them, so they do not prolong the wait. All rows are only read when no
    order is undecided and no event waits in an outbox.
    """
    deadline = time.monotonic() + timeout
    query = _readers(urls)
    while _is_at_work(query) and time.monotonic() < deadline:
        time.sleep(pause / 2)
    while True:
        checks = check(_read(query))
        if not any(one.ids for one in checks if one.name != DEAD_LETTERS) or time.monotonic() > deadline:
            return checks
        time.sleep(pause)


def _is_at_work(query: Readers) -> bool:
    if any(query[service]("SELECT 1 FROM outbox LIMIT 1") for service in SERVICES):
        return True
    return bool(query["orders"]("SELECT 1 FROM orders WHERE status = 'CREATED' LIMIT 1"))


def _unsound_stock(databases: Databases) -> list[str]:
    return [str(key) for key, row in databases.stock.items() if not 0 <= row["reserved"] <= row["on_hand"]]


def _invalid_decisions(databases: Databases) -> list[str]:
    sound = (["order.confirmed"], ["order.cancelled"], ["order.confirmed", "order.cancelled"])
    return [
        str(key)
        for key, row in databases.orders.items()
        if row["status"] != "CREATED" and databases.decisions[key] not in sound
    ]


def _continued_after_end(databases: Databases) -> list[str]:
    """Nothing follows a final status, and the order's status is that of its last step."""
    return [
        str(key)
        for key, row in databases.orders.items()
        if ENDS & set(databases.steps[key][:-1]) or [f"order.{row['status'].lower()}"] != databases.steps[key][-1:]
    ]


def _reserved_differs(databases: Databases) -> list[str]:
    expected = _sum_lines(databases, {"RESERVED"})
    return [str(key) for key, row in databases.stock.items() if row["reserved"] != expected[key]]


def _taken_differs(databases: Databases) -> list[str]:
    """First stock + corrections - committed + returned = on hand."""
    committed = _sum_lines(databases, {"COMMITTED"})
    wrong = []
    for key, row in databases.stock.items():
        adjusted = sum(entry["on_hand_delta"] for entry in databases.movements[key] if entry["order_id"] is None)
        if adjusted - committed[key] != row["on_hand"]:
            wrong.append(str(key))
    return wrong


def _ledger_differs(databases: Databases) -> list[str]:
    wrong = []
    for key, row in databases.stock.items():
        on_hand = reserved = 0
        for entry in databases.movements[key]:
            on_hand, reserved = on_hand + entry["on_hand_delta"], reserved + entry["reserved_delta"]
            if (on_hand, reserved) != (entry["on_hand"], entry["reserved"]):
                break
        if (on_hand, reserved) != (row["on_hand"], row["reserved"]):
            wrong.append(str(key))
    return wrong


def _orphans(databases: Databases) -> list[str]:
    held = {key for key, status in databases.reservations.items() if status != "CANCELLED_BEFORE"}
    held |= {key for key, row in databases.payments.items() if row["status"] != "CANCELLED_BEFORE"}
    return [str(key) for key in held - databases.orders.keys()]


def _is_stocked(databases: Databases, order: Row) -> bool:
    key = order["id"]
    return (
        databases.reservations.get(key) == "COMMITTED" and databases.reserved_lines[key] == databases.order_lines[key]
    )


def _is_paid(databases: Databases, order: Row) -> bool:
    payment = databases.payments.get(order["id"])
    return payment is not None and payment["status"] in PAID and payment["amount"] == order["total_amount"]


def _refunds_differ(databases: Databases) -> list[str]:
    """At rest every refund was made. The sums that the payment stores are not used, except to compare them."""
    wrong = []
    for payment in databases.payments.values():
        made = [row["amount"] for row in databases.refunds[payment["id"]] if row["status"] == "SUCCEEDED"]
        total, amount = sum(made), payment["amount"]
        status = payment["status"]
        holds = {
            "REFUNDED": bool(made) and total == amount,
            "PARTIALLY_REFUNDED": amount is not None and 0 < total < amount,
        }.get(status, not made)
        stored = payment["refunded_amount"], payment["refund_requested_amount"]
        if not holds or len(made) != len(databases.refunds[payment["id"]]) or stored != (total, total):
            wrong.append(str(payment["id"]))
    return wrong


def _holds_no_stock(databases: Databases, order: Row) -> bool:
    return databases.reservations.get(order["id"]) in {"FAILED", "RELEASED", "RETURNED", "CANCELLED_BEFORE"}


def _holds_no_money(databases: Databases, order: Row) -> bool:
    payment = databases.payments.get(order["id"])
    return payment is not None and payment["status"] in {"FAILED", "VOIDED", "REFUNDED", "CANCELLED_BEFORE"}


def _has_statuses(databases: Databases, order: Row) -> bool:
    stock = databases.reservations.get(order["id"], "none")
    payment = databases.payments.get(order["id"], {"status": "none"})["status"]
    # A tombstone publishes no event, so the order's status stays PENDING.
    return order["stock_status"] == ("PENDING" if stock == "CANCELLED_BEFORE" else stock) and order[
        "payment_status"
    ] == ("PENDING" if payment == "CANCELLED_BEFORE" else payment)


def _is_notified(databases: Databases, order: Row) -> bool:
    steps = ["order.created", *databases.decisions[order["id"]]]
    steps += ["order.shipped"] * (order["status"] in {"SHIPPED", "DELIVERED"})
    steps += ["order.delivered"] * (order["status"] == "DELIVERED")
    return all((order["id"], step) in databases.notified for step in steps)


def _orders(
    name: str,
    databases: Databases,
    holds: Callable[[Databases, Row], bool],
    statuses: set[str] | None = None,
) -> Check:
    broken = []
    for key, order in databases.orders.items():
        if statuses is not None and order["status"] not in statuses:
            continue
        if not holds(databases, order):
            broken.append(str(key))
    return Check(name, broken)


def _sum_lines(databases: Databases, statuses: set[str]) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for key, status in databases.reservations.items():
        if status in statuses:
            total += databases.reserved_lines[key]
    return total


def _lines(rows: Iterable[Row]) -> dict[Any, Counter[Any]]:
    lines: dict[Any, Counter[Any]] = defaultdict(Counter)
    for row in rows:
        lines[row["order_id"]][row["product_id"]] += row["quantity"]
    return lines


def _readers(urls: Mapping[str, str]) -> Readers:
    """Return a function for each service that reads rows from its database."""
    return {service: partial(_rows, _engine(url)) for service, url in urls.items()}


@cache
def _engine(url: str) -> sqlalchemy.Engine:
    """One engine for all checks of a process: new ones take longer than the statements of a check."""
    return sqlalchemy.create_engine(url, pool_size=1, pool_pre_ping=True, connect_args={"connect_timeout": 5})


def _rows(engine: sqlalchemy.Engine, statement: str) -> list[Row]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sqlalchemy.text(statement)).mappings()]


def database_urls() -> dict[str, str]:
    """Return each service's database address, from config.yml and the environment."""
    settings = load()
    return {service: database_url(settings, service) for service in SERVICES}


def report(checks: Iterable[Check]) -> str:
    """Return the checks as text for a terminal."""
    lines = []
    for one in checks:
        lines.append(f"  {'ok' if not one.ids else 'BROKEN':<7}{len(one.ids):>6}  {one.name}")
        lines += [f"                 {key}" for key in one.ids[:SHOWN]]
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m qa.support.consistency", description=__doc__)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait until the suite is at rest")
    checks = await_rest(database_urls(), parser.parse_args().timeout)
    print(report(checks))
    return 1 if any(one.ids for one in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
