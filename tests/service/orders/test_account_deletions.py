"""What becomes of the orders of users who delete their accounts, and the export of orders."""

from datetime import timedelta

import pytest
import sqlalchemy

from contracts.errors import PermissionDenied
from contracts.ids import new_id
from contracts.users import UserDeleted
from extensions.storage import deleted_users
from extensions.storage.periodic import PeriodicMethods
from orders import account_deletions
from orders.models import Base
from orders.service import OrdersService
from tests.service.orders.test_addresses import ADDRESS
from tests.service.orders.test_service import (
    ADMIN,
    ALICE,
    BOB,
    authorized,
    catalog,  # noqa: F401 - a fixture
    line,
    reaches,
    reserved,
)
from tests.support import database, eventually


@pytest.fixture
def container(run_service, catalog):  # noqa: F811
    return run_service(OrdersService, services=catalog)


@pytest.fixture
def orders(container, caller):
    return caller.orders


def deleted(who=ALICE):
    return UserDeleted(user_id=who["user_id"])


def stored(statement):
    with database("orders").connect() as connection:
        return connection.execute(sqlalchemy.text(statement)).all()


def execute(statement):
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text(statement))


def waiting():
    """The number of users whose orders are to be looked for now."""
    [[number]] = stored("SELECT count(*) FROM deleted_users WHERE check_at <= now()")
    return number


def confirm(orders, bus, order):
    bus.publish(reserved(order))
    bus.publish(authorized(order))
    return reaches(orders, order, "CONFIRMED")


def test_addresses_are_removed_from_all_orders_of_the_user(orders, bus, monkeypatch):
    monkeypatch.setattr(account_deletions, "BATCH", 2)
    shipped = orders.create_order([line()], actor=ALICE, shipping_address=ADDRESS)
    confirm(orders, bus, shipped)
    orders.ship_order(shipped["id"], actor=ADMIN)
    mine = [shipped, *(orders.create_order([line()], actor=ALICE, shipping_address=ADDRESS) for _ in range(4))]
    other = orders.create_order([line()], actor=BOB, shipping_address=ADDRESS)
    bus.publish(deleted())
    for order in mine:
        eventually(lambda order=order: orders.get_order(order["id"])["shipping_address"] is None)
    assert orders.get_order(other["id"])["shipping_address"] == ADDRESS
    assert waiting() == 0


def test_open_orders_are_cancelled_and_others_stay(orders, bus):
    created, confirmed, shipped = (orders.create_order([line()], actor=ALICE) for _ in range(3))
    for order in (confirmed, shipped):
        confirm(orders, bus, order)
    orders.ship_order(shipped["id"], actor=ADMIN)
    other = orders.create_order([line()], actor=BOB)
    bus.publish(deleted())
    for order in (created, confirmed):
        [event] = bus.wait_for("order.cancelled", order["id"])
        assert (str(event.user_id), event.reason) == (ALICE["user_id"], "USER")
        now = orders.get_order(order["id"])
        assert (now["status"], now["cancel_reason"], now["user_id"]) == ("CANCELLED", "USER", ALICE["user_id"])
    assert orders.get_order(shipped["id"])["status"] == "SHIPPED"
    assert orders.get_order(other["id"])["status"] == "CREATED"


def test_the_same_event_again_and_another_one_change_nothing(orders, bus):
    order = orders.create_order([line()], actor=ALICE)
    message_id = bus.publish(deleted())
    bus.wait_for("order.cancelled", order["id"])
    bus.publish(deleted(), message_id)
    bus.publish(deleted())
    marker = orders.create_order([line()], actor=BOB)
    bus.publish(deleted(BOB))
    bus.wait_for("order.cancelled", marker["id"])
    assert len(bus.events("order.cancelled", order["id"])) == 1
    assert len(stored("SELECT 1 FROM deleted_users")) == 2


def test_an_order_that_was_placed_meanwhile_is_cancelled_too(orders, bus, container):
    """The request was under way when the account was deleted, or its gateway had not heard of it."""
    bus.publish(deleted())
    eventually(lambda: stored("SELECT 1 FROM deleted_users") and not waiting())
    order = orders.create_order([line()], actor=ALICE)
    confirm(orders, bus, order)
    execute("UPDATE deleted_users SET check_at = now()")
    container.shared_extensions[PeriodicMethods].trigger("cancel_orders_of_deleted_users")
    bus.wait_for("order.cancelled", order["id"])


def test_more_orders_than_one_transaction_takes(orders, bus, monkeypatch):
    monkeypatch.setattr(account_deletions, "BATCH", 2)
    monkeypatch.setattr(deleted_users, "CHECKS", (timedelta(hours=1),))  # a later check does not help
    made = [orders.create_order([line()], actor=ALICE) for _ in range(5)]
    bus.publish(deleted())
    for order in made:
        bus.wait_for("order.cancelled", order["id"])
    eventually(lambda: not waiting())


def test_a_locked_order_delays_only_its_own_user(orders, bus):
    mine, other = (orders.create_order([line()], actor=who) for who in (ALICE, BOB))
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("SELECT 1 FROM orders WHERE id = :id FOR UPDATE"), {"id": mine["id"]})
        bus.publish(deleted())
        bus.publish(deleted(BOB))
        bus.wait_for("order.cancelled", other["id"])
        assert orders.get_order(mine["id"])["status"] == "CREATED"
        assert waiting() == 1


def test_deleted_users_are_checked_again_and_then_forgotten(orders):
    """Until no dead letter of that time can be replayed."""
    ages = ("0 s", "11 s", "3 min", "21 min", "30 days", "92 days")
    due = []
    with sqlalchemy.orm.Session(database("orders")) as session:
        for age in ages:
            user_id = new_id()
            deleted_users.add(session, Base.deleted_users, [user_id])
            mine = {"id": user_id}
            session.execute(
                sqlalchemy.text(f"UPDATE deleted_users SET deleted_at = now() - interval '{age}' WHERE id = :id"), mine
            )
            deleted_users.postpone(session, Base.deleted_users, [user_id])
            seconds = "SELECT extract(epoch FROM check_at - now())::float FROM deleted_users WHERE id = :id"
            due.append(session.scalar(sqlalchemy.text(seconds), mine))
        session.rollback()
    day = 24 * 3600
    wanted = [10, 120 - 11, 1200 - 180, day, day, None]
    assert [None if one is None else round(one / 5) for one in due] == [
        None if one is None else round(one / 5) for one in wanted
    ]


class TestExport:
    def test_has_all_that_is_kept_about_the_orders(self, orders, bus):
        first = orders.create_order([line()], actor=ALICE, payment_method="pm_slow_1")
        orders.create_order([line()], actor=BOB)
        second = orders.create_order([line()], actor=ALICE)
        confirm(orders, bus, second)
        page = orders.export_orders(ALICE["user_id"], actor=ALICE)
        assert [item["id"] for item in page["items"]] == [second["id"], first["id"]]
        assert page["next_cursor"] is None
        [newest, oldest] = page["items"]
        assert oldest == first | {
            "payment_method": "pm_slow_1",
            "timeline": orders.get_timeline(first["id"])["items"],
        }
        assert {entry["event"] for entry in newest["timeline"]} >= {"order.created", "order.confirmed"}

    def test_is_paged_and_private(self, orders):
        made = [orders.create_order([line()], actor=ALICE)["id"] for _ in range(3)]
        first = orders.export_orders(ALICE["user_id"], limit=2, actor=ADMIN)
        rest = orders.export_orders(ALICE["user_id"], limit=2, cursor=first["next_cursor"], actor=ADMIN)
        assert [item["id"] for page in (first, rest) for item in page["items"]] == made[::-1]
        with pytest.raises(PermissionDenied):
            orders.export_orders(ALICE["user_id"], actor=BOB)
