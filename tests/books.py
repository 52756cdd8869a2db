"""Does everything add up? Orders against reservations, stock, payments, notifications, outboxes and dead letters.

`python -m tests.books` waits until the suite is at rest, prints each check with its count, and exits with 1
when one is not zero. It reads the six databases side by side, which no service may: it is the auditor's view.
"""

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy

from deploy.settings import load

SHOWN = 20
DEAD_LETTERS = "no dead letters"
DATABASES = ("users", "catalog", "orders", "inventory", "payments", "notifications")
ENDS = {"order.cancelled", "order.delivered"}
DECISIONS = {"order.confirmed", "order.cancelled"}
DECIDED_FOR = {"CONFIRMED", "SHIPPED", "DELIVERED"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Books:
    """What the databases hold, read one after the other: only at rest do they belong together."""

    orders: dict[Any, Row]
    order_lines: dict[Any, Counter[Any]]
    steps: dict[Any, list[str]]
    decisions: dict[Any, list[str]]
    reservations: dict[Any, str]
    reserved_lines: dict[Any, Counter[Any]]
    stock: dict[Any, Row]
    movements: dict[Any, list[Row]]
    payments: dict[Any, Row]
    notified: set[tuple[Any, str]]
    outbox: dict[str, int]
    dead_letters: dict[str, list[str]]


@dataclass(frozen=True)
class Check:
    """One invariant: the ids of whatever breaks it."""

    name: str
    ids: list[str] = field(default_factory=list)


def read_books(urls: Mapping[str, str]) -> Books:
    """Read everything that the checks need."""
    ask = {service: _reader(url) for service, url in urls.items()}
    steps = defaultdict(list)
    for row in ask["orders"]("SELECT order_id, event FROM timeline WHERE event LIKE 'order.%' ORDER BY id"):
        steps[row["order_id"]].append(row["event"])
    movements = defaultdict(list)
    for row in ask["inventory"]("SELECT * FROM movements ORDER BY entry"):
        movements[row["product_id"]].append(row)
    return Books(
        orders={row["id"]: row for row in ask["orders"]("SELECT * FROM orders")},
        order_lines=_lines(ask["orders"]("SELECT order_id, product_id, quantity FROM order_items")),
        steps=steps,
        decisions=defaultdict(
            list, {key: [event for event in events if event in DECISIONS] for key, events in steps.items()}
        ),
        reservations={
            row["order_id"]: row["status"] for row in ask["inventory"]("SELECT order_id, status FROM reservations")
        },
        reserved_lines=_lines(ask["inventory"]("SELECT order_id, product_id, quantity FROM reservation_lines")),
        stock={row["product_id"]: row for row in ask["inventory"]("SELECT * FROM stock")},
        movements=movements,
        payments={row["order_id"]: row for row in ask["payments"]("SELECT * FROM payments")},
        notified={
            (row["order_id"], row["kind"])
            for row in ask["notifications"]("SELECT order_id, kind FROM notifications WHERE order_id IS NOT NULL")
        },
        outbox={service: len(ask[service]("SELECT id FROM outbox")) for service in DATABASES},
        dead_letters={
            service: [str(row["id"]) for row in ask[service]("SELECT id FROM dead_letters WHERE replayed_at IS NULL")]
            for service in DATABASES
        },
    )


def check(books: Books) -> list[Check]:
    """Return every invariant with what breaks it. Those of the first line hold always, the others at rest."""
    return [
        _orders("order decided", books, lambda _books, order: order["status"] != "CREATED"),
        Check("stock never below zero nor below what is reserved", _unsound_stock(books)),
        Check("one decision, or a confirmation and then a cancellation", _odd_decisions(books)),
        Check("ended for good", _moved_on(books)),
        Check("reserved stock is that of the RESERVED orders", _reserved_differs(books)),
        Check("the stock ledger gives the stock", _ledger_differs(books)),
        Check("stock taken is that of the COMMITTED orders", _taken_differs(books)),
        _orders("confirmed: all its stock committed", books, _is_stocked, DECIDED_FOR),
        _orders("confirmed: captured once, exactly its total", books, _is_paid, DECIDED_FOR),
        _orders("cancelled: holds no stock", books, _holds_no_stock, {"CANCELLED"}),
        _orders("cancelled: holds no money", books, _holds_no_money, {"CANCELLED"}),
        _orders("order knows what became of its stock and payment", books, _knows),
        _orders("customer notified of every step", books, _is_told),
        Check("no reservation or payment without an order", _orphans(books)),
        Check("outbox empty", [f"{service}: {count}" for service, count in books.outbox.items() if count]),
        Check(DEAD_LETTERS, [f"{name}: {letter}" for name, ids in books.dead_letters.items() for letter in ids]),
    ]


def await_rest(urls: Mapping[str, str], timeout: float = 60.0, pause: float = 0.5) -> list[Check]:
    """Return the checks as soon as all are met, or as they are when `timeout` seconds have passed.

    Dead letters wait for a person, so nothing waits for them.
    """
    deadline = time.monotonic() + timeout
    while True:
        checks = check(read_books(urls))
        if not any(one.ids for one in checks if one.name != DEAD_LETTERS) or time.monotonic() > deadline:
            return checks
        time.sleep(pause)


def _unsound_stock(books: Books) -> list[str]:
    return [str(key) for key, row in books.stock.items() if not 0 <= row["reserved"] <= row["on_hand"]]


def _odd_decisions(books: Books) -> list[str]:
    sound = (["order.confirmed"], ["order.cancelled"], ["order.confirmed", "order.cancelled"])
    return [
        str(key)
        for key, row in books.orders.items()
        if row["status"] != "CREATED" and books.decisions[key] not in sound
    ]


def _moved_on(books: Books) -> list[str]:
    """Nothing follows an end, and the order is what its last step says."""
    return [
        str(key)
        for key, row in books.orders.items()
        if ENDS & set(books.steps[key][:-1]) or [f"order.{row['status'].lower()}"] != books.steps[key][-1:]
    ]


def _reserved_differs(books: Books) -> list[str]:
    expected = _sum_lines(books, {"RESERVED"})
    return [str(key) for key, row in books.stock.items() if row["reserved"] != expected[key]]


def _taken_differs(books: Books) -> list[str]:
    """First stock + corrections - committed + returned = on hand."""
    committed = _sum_lines(books, {"COMMITTED"})
    wrong = []
    for key, row in books.stock.items():
        by_people = sum(entry["on_hand_delta"] for entry in books.movements[key] if entry["order_id"] is None)
        if by_people - committed[key] != row["on_hand"]:
            wrong.append(str(key))
    return wrong


def _ledger_differs(books: Books) -> list[str]:
    wrong = []
    for key, row in books.stock.items():
        on_hand = reserved = 0
        for entry in books.movements[key]:
            on_hand, reserved = on_hand + entry["on_hand_delta"], reserved + entry["reserved_delta"]
            if (on_hand, reserved) != (entry["on_hand"], entry["reserved"]):
                break
        if (on_hand, reserved) != (row["on_hand"], row["reserved"]):
            wrong.append(str(key))
    return wrong


def _orphans(books: Books) -> list[str]:
    held = {key for key, status in books.reservations.items() if status != "CANCELLED_BEFORE"}
    held |= {key for key, row in books.payments.items() if row["status"] != "CANCELLED_BEFORE"}
    return [str(key) for key in held - books.orders.keys()]


def _is_stocked(books: Books, order: Row) -> bool:
    key = order["id"]
    return books.reservations.get(key) == "COMMITTED" and books.reserved_lines[key] == books.order_lines[key]


def _is_paid(books: Books, order: Row) -> bool:
    payment = books.payments.get(order["id"])
    return payment is not None and payment["status"] == "CAPTURED" and payment["amount"] == order["total_amount"]


def _holds_no_stock(books: Books, order: Row) -> bool:
    return books.reservations.get(order["id"]) in {"FAILED", "RELEASED", "RETURNED", "CANCELLED_BEFORE"}


def _holds_no_money(books: Books, order: Row) -> bool:
    payment = books.payments.get(order["id"])
    return payment is not None and payment["status"] in {"FAILED", "VOIDED", "REFUNDED", "CANCELLED_BEFORE"}


def _knows(books: Books, order: Row) -> bool:
    stock = books.reservations.get(order["id"], "none")
    payment = books.payments.get(order["id"], {"status": "none"})["status"]
    # A tombstone is never announced, so the order never hears of it.
    return order["stock_status"] == ("PENDING" if stock == "CANCELLED_BEFORE" else stock) and order[
        "payment_status"
    ] == ("PENDING" if payment == "CANCELLED_BEFORE" else payment)


def _is_told(books: Books, order: Row) -> bool:
    steps = ["order.created", *books.decisions[order["id"]]]
    steps += ["order.shipped"] * (order["status"] in {"SHIPPED", "DELIVERED"})
    steps += ["order.delivered"] * (order["status"] == "DELIVERED")
    return all((order["id"], step) in books.notified for step in steps)


def _orders(
    name: str,
    books: Books,
    holds: Callable[[Books, Row], bool],
    statuses: set[str] | None = None,
) -> Check:
    broken = []
    for key, order in books.orders.items():
        if statuses is not None and order["status"] not in statuses:
            continue
        if not holds(books, order):
            broken.append(str(key))
    return Check(name, broken)


def _sum_lines(books: Books, statuses: set[str]) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for key, status in books.reservations.items():
        if status in statuses:
            total += books.reserved_lines[key]
    return total


def _lines(rows: Iterable[Row]) -> dict[Any, Counter[Any]]:
    lines: dict[Any, Counter[Any]] = defaultdict(Counter)
    for row in rows:
        lines[row["order_id"]][row["product_id"]] += row["quantity"]
    return lines


def _reader(url: str) -> Callable[[str], list[Row]]:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": 5})

    def read(statement: str) -> list[Row]:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(sqlalchemy.text(statement)).mappings()]

    return read


def database_urls() -> dict[str, str]:
    """Return each service's database address, from config.yml and the environment."""
    return {key.partition(":")[0]: url for key, url in load()["DB_URIS"].items()}


def report(checks: Iterable[Check]) -> str:
    """Return the checks as lines for a person."""
    lines = []
    for one in checks:
        lines.append(f"  {'ok' if not one.ids else 'BROKEN':<7}{len(one.ids):>6}  {one.name}")
        lines += [f"                 {key}" for key in one.ids[:SHOWN]]
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.books", description=__doc__)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for the suite to come to rest")
    checks = await_rest(database_urls(), parser.parse_args().timeout)
    print(report(checks))
    return 1 if any(one.ids for one in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
