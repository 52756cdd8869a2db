"""The consistency check finds each kind of damage, and so does the independent check of qa/support/consistency.py.

All services run on real servers. Orders are placed through the API; SQL damages one row at a time.
"""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import sqlalchemy
from nameko.containers import get_container_cls
from sqlalchemy.orm import Session

from contracts.errors import PermissionDenied, UpstreamTimeout, ValidationFailed
from contracts.ids import new_id
from contracts.services import SERVICES
from extensions.messaging import queue_depths
from extensions.operations.audits import SHOWN_IDS, read_snapshot
from orders import audit, reconciliation
from orders.reconciliation import RECENT_SECONDS
from qa.support import consistency
from tests.service.conftest import prepare, stop_all
from tests.support import TEST_TIMEOUT_SECONDS, Caller, database, eventually, owned_database, service_class

SERVICE_CLASSES = tuple(map(service_class, SERVICES))
ALICE = {"user_id": str(new_id()), "roles": ["customer"]}
STRANGER = str(new_id())


@dataclass
class Shop:
    """All services, two products, and an order of each kind. `ids` names the rows that are damaged."""

    caller: Caller
    ids: dict[str, str]

    def look(self, **arguments):
        return self.caller.orders.check_consistency(**arguments)

    def broken(self):
        """The violations that the endpoint finds."""
        return {check["name"]: check["ids"] for check in self.look()["checks"] if check["count"]}

    def audited(self):
        """The violations that the checks of qa/support/consistency.py find."""
        checks = consistency.check(consistency.read_databases(consistency.database_urls()))
        return {check.name: check.ids for check in checks if check.ids}


@pytest.fixture(scope="module")
def without_haste():
    """Let the checks take as long as a slow machine needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue_depths, "TIMEOUT_SECONDS", TEST_TIMEOUT_SECONDS)
        yield


@pytest.fixture(scope="module")
def shop(servers, without_haste):
    containers = [get_container_cls()(service) for service in SERVICE_CLASSES]
    for container in containers:
        prepare(container.service_name)
        container.start()
    shop = Shop(Caller(), {"stranger": STRANGER})
    tea, pot = (make_product(shop.caller, sku, price) for sku, price in (("TEA", "10.00"), ("POT", "25.50")))
    shop.ids |= {"tea": tea, "pot": pot}
    for name in ("confirmed", "delivered", "returned"):
        shop.ids[name] = place(shop.caller, (tea, 2), (pot, 1))
    shop.ids["sold out"] = place(shop.caller, (tea, 1), (pot, 5000))
    settled(shop.caller, *shop.ids.values())
    shop.caller.orders.ship_order(shop.ids["delivered"])
    shop.caller.orders.deliver_order(shop.ids["delivered"])
    shop.caller.orders.cancel_order(shop.ids["returned"])
    settled(shop.caller, *shop.ids.values())
    eventually(lambda: not shop.broken() and not shop.audited())
    for service, table in (("orders", "orders"), ("inventory", "reservations"), ("payments", "payments")):
        run(service, f"UPDATE {table} SET updated_at = updated_at - interval '1 hour'", {})
    run("notifications", "UPDATE notifications SET created_at = created_at - interval '1 hour'", {})
    yield shop
    stop_all(containers)


def make_product(caller, sku, price):
    product = caller.catalog.create_product(sku=sku, name=sku, price=price)
    caller.inventory.set_stock(product["id"], sku, 100)
    return product["id"]


def place(caller, *lines):
    items = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]
    return caller.orders.create_order(items, actor=ALICE)["id"]


def settled(caller, *_orders):
    eventually(lambda: caller.orders.list_sagas()["items"] == [])


def run(service, statements, ids):
    engine = owned_database(service)
    with engine.begin() as connection:
        for statement in statements.split(";"):
            connection.execute(sqlalchemy.text(statement), {name.replace(" ", "_"): key for name, key in ids.items()})


KEEP = "CREATE TABLE kept AS SELECT * FROM {0} WHERE {1}; DELETE FROM {0} WHERE {1}"
PUT_BACK = "INSERT INTO {0} SELECT * FROM kept; DROP TABLE kept"
ADD_EVENT = (
    "INSERT INTO timeline (order_id, event, event_id, service, data) VALUES (:{}, '{}', :stranger, 'orders', '{{}}')"
)
REMOVE_EVENT = "DELETE FROM timeline WHERE event_id = :stranger"
WITHIN = "ck_stock_reserved_within_on_hand"

# service, damage, repair; the named object; the check of the endpoint, and the check of qa/support/consistency.py
DAMAGE = {
    "an order undecided": (
        "orders",
        "UPDATE orders SET status = 'CREATED', deadline_at = clock_timestamp() + interval '20 s' WHERE id = :confirmed",
        "UPDATE orders SET status = 'CONFIRMED' WHERE id = :confirmed",
        "confirmed", "orders_decided", "order decided"),
    "confirmed twice": (
        "orders", ADD_EVENT.format("confirmed", "order.confirmed"), REMOVE_EVENT,
        "confirmed", "decided_once", "one decision, or a confirmation and then a cancellation"),
    "cancelled, then confirmed": (
        "orders", ADD_EVENT.format("sold_out", "order.confirmed"), REMOVE_EVENT,
        "sold out", "decided_once", "one decision, or a confirmation and then a cancellation"),
    "decided without a decision": (
        "orders",
        "UPDATE timeline SET event = 'order.canceled' WHERE order_id = :sold_out AND event = 'order.cancelled'",
        "UPDATE timeline SET event = 'order.cancelled' WHERE order_id = :sold_out AND event = 'order.canceled'",
        "sold out", "decided_once", "one decision, or a confirmation and then a cancellation"),
    "a cancelled order confirmed": (
        "orders",
        "UPDATE orders SET status = 'CONFIRMED', cancel_reason = NULL WHERE id = :sold_out",
        "UPDATE orders SET status = 'CANCELLED', cancel_reason = 'OUT_OF_STOCK' WHERE id = :sold_out",
        "sold out", "ended_for_good", "no step after a final status"),
    "shipped after its delivery": (
        "orders", ADD_EVENT.format("delivered", "order.shipped"), REMOVE_EVENT,
        "delivered", "ended_for_good", "no step after a final status"),
    "more reserved than there is": (
        "inventory",
        f"ALTER TABLE stock DROP CONSTRAINT {WITHIN}; UPDATE stock SET reserved = on_hand + 1 WHERE product_id = :tea",
        (f"UPDATE stock SET reserved = 0 WHERE product_id = :tea;"
        f" ALTER TABLE stock ADD CONSTRAINT {WITHIN} CHECK (0 <= reserved AND reserved <= on_hand)"),
        "tea", "stock_in_bounds", "stock never below zero nor below what is reserved"),
    "reserved without an order": (
        "inventory", "UPDATE stock SET reserved = 1 WHERE product_id = :pot",
        "UPDATE stock SET reserved = 0 WHERE product_id = :pot",
        "pot", "stock_reserved", "reserved stock is that of the RESERVED orders"),
    "a missing unit": (
        "inventory", "UPDATE stock SET on_hand = on_hand - 1 WHERE product_id = :pot",
        "UPDATE stock SET on_hand = on_hand + 1 WHERE product_id = :pot",
        "pot", "stock_balance", "stock taken is that of the COMMITTED orders"),
    "a missing unit, according to the ledger": (
        "inventory", "UPDATE stock SET on_hand = on_hand - 1 WHERE product_id = :tea",
        "UPDATE stock SET on_hand = on_hand + 1 WHERE product_id = :tea",
        "tea", "stock_ledger", "the stock ledger gives the stock"),
    "an entry of the ledger changed": (
        "inventory",
        "UPDATE movements SET on_hand = on_hand + 1 WHERE product_id = :tea AND kind = 'FIRST'",
        "UPDATE movements SET on_hand = on_hand - 1 WHERE product_id = :tea AND kind = 'FIRST'",
        "tea", "stock_ledger", "the stock ledger gives the stock"),
    "confirmed, its stock released": (
        "inventory", "UPDATE reservations SET status = 'RELEASED' WHERE order_id = :confirmed",
        "UPDATE reservations SET status = 'COMMITTED' WHERE order_id = :confirmed",
        "confirmed", "confirmed_has_stock", "confirmed: all its stock committed"),
    "confirmed, too few committed": (
        "inventory", "UPDATE reservation_lines SET quantity = 1 WHERE order_id = :delivered AND product_id = :tea",
        "UPDATE reservation_lines SET quantity = 2 WHERE order_id = :delivered AND product_id = :tea",
        "delivered", "confirmed_has_stock", "confirmed: all its stock committed"),
    "confirmed, not known to inventory": (
        "inventory",
        "CREATE TABLE kept_lines AS SELECT * FROM reservation_lines WHERE order_id = :confirmed;"
        " DELETE FROM reservation_lines WHERE order_id = :confirmed; "
        + KEEP.format("reservations", "order_id = :confirmed"),
        PUT_BACK.format("reservations")
        + "; INSERT INTO reservation_lines SELECT * FROM kept_lines; DROP TABLE kept_lines",
        "confirmed", "confirmed_has_stock", "confirmed: all its stock committed"),
    "confirmed, its payment voided": (
        "payments", "UPDATE payments SET status = 'VOIDED' WHERE order_id = :confirmed",
        "UPDATE payments SET status = 'CAPTURED' WHERE order_id = :confirmed",
        "confirmed", "confirmed_is_paid", "confirmed: captured once, exactly its total"),
    "confirmed, a cent too much": (
        "payments", "UPDATE payments SET amount = amount + 0.01 WHERE order_id = :delivered",
        "UPDATE payments SET amount = amount - 0.01 WHERE order_id = :delivered",
        "delivered", "confirmed_is_paid", "confirmed: captured once, exactly its total"),
    "confirmed, not known to payments": (
        "payments", KEEP.format("payments", "order_id = :confirmed"), PUT_BACK.format("payments"),
        "confirmed", "confirmed_is_paid", "confirmed: captured once, exactly its total"),
    "cancelled, stock held": (
        "inventory", "UPDATE reservations SET status = 'RESERVED' WHERE order_id = :returned",
        "UPDATE reservations SET status = 'RETURNED' WHERE order_id = :returned",
        "returned", "cancelled_holds_no_stock", "cancelled: holds no stock"),
    "cancelled, money held": (
        "payments", "UPDATE payments SET status = 'CAPTURED' WHERE order_id = :returned",
        "UPDATE payments SET status = 'REFUNDED' WHERE order_id = :returned",
        "returned", "cancelled_holds_no_money", "cancelled: holds no money"),
    "cancelled, without a tombstone": (
        "payments", KEEP.format("payments", "order_id = :sold_out"), PUT_BACK.format("payments"),
        "sold out", "cancelled_holds_no_money", "cancelled: holds no money"),
    "the order's view of its stock": (
        "orders", "UPDATE orders SET stock_status = 'RELEASED' WHERE id = :returned",
        "UPDATE orders SET stock_status = 'RETURNED' WHERE id = :returned",
        "returned", "order_knows_stock", "order has the statuses of its reservation and payment"),
    "the order's view of its payment": (
        "orders", "UPDATE orders SET payment_status = 'VOIDED' WHERE id = :returned",
        "UPDATE orders SET payment_status = 'REFUNDED' WHERE id = :returned",
        "returned", "order_knows_payment", "order has the statuses of its reservation and payment"),
    "a step without a notification": (
        "notifications",
        KEEP.format("notifications", "order_id = :delivered AND kind = 'order.shipped'"),
        PUT_BACK.format("notifications"),
        "delivered", "customer_notified", "customer notified of every step"),
    "a reservation for no order": (
        "inventory", "INSERT INTO reservations (order_id, status) VALUES (:stranger, 'FAILED')",
        "DELETE FROM reservations WHERE order_id = :stranger",
        "stranger", "no_orphans", "no reservation or payment without an order"),
    "a payment for no order": (
        "payments",
        ("CREATE TABLE kept AS SELECT * FROM payments WHERE order_id = :confirmed;"
        " UPDATE kept SET id = :stranger, order_id = :stranger; INSERT INTO payments SELECT * FROM kept"),
        "DELETE FROM payments WHERE order_id = :stranger; DROP TABLE kept",
        "stranger", "no_orphans", "no reservation or payment without an order"),
    "a dead letter": (
        "catalog",
        ("INSERT INTO dead_letters (id, queue, body, headers, error, attempts)"
        " VALUES (:stranger, 'catalog.on_nothing', '', '{}', 'none', 1)"),
        "DELETE FROM dead_letters",
        "stranger", "no_dead_letters", consistency.DEAD_LETTERS),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_until_it_is_repaired(shop, damage):
    service, harm, repair, victim, name, auditors_name = DAMAGE[damage]
    run(service, harm, shop.ids)
    try:
        broken, audited = shop.broken(), shop.audited()
    finally:
        run(service, repair, shop.ids)
    assert shop.ids[victim] in broken[name]
    assert any(shop.ids[victim] in each for each in audited[auditors_name])
    mended = shop.look()
    assert (mended["at_rest"], any(check["count"] for check in mended["checks"])) == (True, False)
    assert shop.audited() == {}


def test_an_unsent_event_is_in_flight(shop):
    run(
        "users",
        "INSERT INTO outbox (message_id, event_type, body, correlation_id, headers, due_at)"
        " VALUES (:stranger, 'user.updated', '{}', '', '{}', clock_timestamp() + interval '50 s')",
        shop.ids,
    )
    seen, broken, audited = shop.look(), shop.broken(), shop.audited()
    run("users", "DELETE FROM outbox WHERE message_id = :stranger", shop.ids)
    assert (seen["at_rest"], seen["in_flight"], broken) == (False, 1, {"outboxes_empty": [STRANGER]})
    assert audited == {"outbox empty": ["users: 1"]}


def test_a_difference_counts_as_in_flight_for_a_minute(shop):
    harm = (
        "UPDATE payments SET status = :status, updated_at = clock_timestamp() - :age * interval '1 s'"
        " WHERE order_id = :confirmed"
    )
    run("payments", harm, {**shop.ids, "status": "VOIDED", "age": RECENT_SECONDS - 30})
    young = shop.look()
    run("payments", harm, {**shop.ids, "status": "VOIDED", "age": RECENT_SECONDS + 5})
    old = shop.look()
    run("payments", harm, {**shop.ids, "status": "CAPTURED", "age": 3600})
    assert (young["at_rest"], young["in_flight"]) == (False, 1)
    assert (old["at_rest"], old["in_flight"]) == (True, 0)
    assert young["checks"] == old["checks"]


def test_an_order_that_awaits_a_reply_is_in_flight_at_any_age(shop):
    run("orders", "UPDATE orders SET payment_status = 'AUTHORIZED' WHERE id = :confirmed", shop.ids)
    seen = shop.look()
    run("orders", "UPDATE orders SET payment_status = 'CAPTURED' WHERE id = :confirmed", shop.ids)
    assert (seen["at_rest"], seen["in_flight"]) == (False, 1)


def test_only_orders_placed_since_the_given_time_are_compared(shop):
    run("payments", "UPDATE payments SET status = 'VOIDED' WHERE order_id = :confirmed", shop.ids)
    since = shop.caller.orders.get_order(shop.ids["sold out"])["created_at"]
    all_of_them, later = shop.look(), shop.look(since=since)
    run("payments", "UPDATE payments SET status = 'CAPTURED' WHERE order_id = :confirmed", shop.ids)
    assert [shop.ids["confirmed"]] in [check["ids"] for check in all_of_them["checks"]]
    assert not any(check["count"] for check in later["checks"])


def test_checks_without_time_left_are_reported(shop, monkeypatch):
    monkeypatch.setattr(reconciliation, "MARGIN_SECONDS", reconciliation.LONGEST_SECONDS)
    run("payments", "UPDATE payments SET status = 'VOIDED' WHERE order_id = :confirmed", shop.ids)
    broken = shop.broken()
    run("payments", "UPDATE payments SET status = 'CAPTURED' WHERE order_id = :confirmed", shop.ids)
    assert {name: len(ids) for name, ids in broken.items()} == {"ranges_not_compared": 1}


def test_many_violations_are_counted_and_some_are_listed(shop, monkeypatch):
    monkeypatch.setattr(audit, "RANGE", 7)
    monkeypatch.setattr(reconciliation, "CHUNK", 2)
    copies = (
        "INSERT INTO reservations (order_id, status) SELECT gen_random_uuid(), 'FAILED' FROM generate_series(1, 50)"
    )
    run("inventory", copies, {})
    (orphans,) = (check for check in shop.look()["checks"] if check["count"])
    run("inventory", "DELETE FROM reservations WHERE status = 'FAILED' AND order_id <> :sold_out", shop.ids)
    assert (orphans["name"], orphans["count"], len(orphans["ids"])) == ("no_orphans", 50, SHOWN_IDS)
    assert shop.broken() == {}


def test_a_check_that_takes_too_long_ends_with_a_timeout(servers):
    class Work:
        """The part of a unit of work that a snapshot needs."""

        @contextmanager
        def transaction(self):
            with Session(database("orders")) as session:
                yield session

    with pytest.raises(UpstreamTimeout), read_snapshot(Work(), seconds=0.1) as session:
        session.execute(sqlalchemy.text("SELECT pg_sleep(5)"))


def test_the_exit_code_of_the_command_shows_the_result(shop, environment):
    def check(*arguments):
        command = [sys.executable, "-m", "deploy.consistency", "--timeout", "20", *arguments]
        ended = subprocess.run(
            command, env=os.environ | environment, check=False, capture_output=True, text=True, timeout=60
        )
        return ended.returncode, ended.stdout + ended.stderr

    assert check()[0] == 0
    run("payments", "UPDATE payments SET status = 'VOIDED' WHERE order_id = :confirmed", shop.ids)
    code, output = check()
    assert check("--since", "2100-01-01T00:00:00Z")[0] == 0
    run("payments", "UPDATE payments SET status = 'CAPTURED' WHERE order_id = :confirmed", shop.ids)
    assert (code, shop.ids["confirmed"] in output) == (1, True)
    code, output = check("--since", "yesterday")
    assert (code, "since" in output) == (2, True)


def test_only_an_administrator_may_check_consistency(shop):
    for ask in (shop.caller.orders.check_consistency, shop.caller.orders.list_sagas):
        with pytest.raises(PermissionDenied):
            ask(actor=ALICE)
    with pytest.raises(PermissionDenied):
        shop.caller.inventory.audit(STRANGER, actor=ALICE)
    with pytest.raises(PermissionDenied):
        shop.caller.payments.audit_rows([], actor=ALICE)


def test_an_invalid_range_is_refused(shop):
    for arguments in (["yesterday"], [STRANGER, ["tomorrow"]]):
        with pytest.raises(ValidationFailed, match="must be a UUID"):
            shop.caller.inventory.audit(*arguments)
