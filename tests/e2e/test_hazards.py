"""The hazards of a saga, H1 to H14, caused on the running suite; afterwards all invariants must hold."""

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import UUID

import eventlet
import pytest
import sqlalchemy

from contracts.events import EVENTS, queue_name
from contracts.ids import new_id
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderLine
from qa.support.client import Client
from tests.e2e.conftest import READY_SECONDS
from tests.support import connect, database, eventually

TIMER_GAP_SECONDS = 4.0  # `seconds` + `after_gap` of expire_orders in orders/service.py


def at_once(tasks):
    """Run callables concurrently; returns their results in order."""
    with ThreadPoolExecutor(max_workers=len(tasks)) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]


def client(shop):
    return Client(shop.url, shop.customer.token)


def test_h1_stock_reserved_after_payment_failed_is_released(shop):
    expensive = shop.product("12000.00", 5)
    shop.stop("inventory")
    order = shop.order((expensive, 1))
    assert shop.reaches(order, "CANCELLED")["cancel_reason"] == "PAYMENT_FAILED"
    shop.start("inventory")
    shop.assert_sound()
    assert shop.stock(expensive) == (5, 0)


def test_h2_payment_authorized_after_stock_failed_is_voided(shop):
    gone = shop.product(stock=0)
    shop.stop("payments")
    order = shop.order((gone, 1))
    assert shop.reaches(order, "CANCELLED")["cancel_reason"] == "OUT_OF_STOCK"
    shop.start("payments")
    shop.assert_sound()
    assert shop.payment(order) is None or shop.payment(order)["status"] == "VOIDED"


def test_h3_a_cancellation_that_overtakes_leaves_a_tombstone(shop, bus):
    pen, order_id, user_id = shop.product(stock=5), new_id(), new_id()
    bus.publish(OrderCancelled(order_id=order_id, user_id=user_id, reason=CancelReason.USER))
    for service in ("inventory", "payments"):
        eventually(lambda service=service: bus.is_drained(queue_name(service, OrderCancelled)))
    line = OrderLine(product_id=pen["id"], product_sku=pen["sku"], quantity=1, price_snapshot=Decimal("10.00"))
    bus.publish(
        OrderCreated(order_id=order_id, user_id=user_id, total_amount=Decimal("10.00"), currency="TRY", items=(line,))
    )
    # A later order of the same product passes through the same queues: once it is settled, so are the events above.
    shop.reaches(shop.order((pen, 1)), "CONFIRMED")
    shop.has_stock(pen, 4)
    assert bus.events("inventory.stock_reserved", str(order_id)) == []
    assert bus.events("payment.authorized", str(order_id)) == []
    assert shop.payment({"id": order_id}) is None


def test_h4_two_concurrent_replies_always_confirm(shop):
    pen = shop.product(stock=100)
    orders = at_once([lambda: shop.order((pen, 1), client=client(shop))] * 30)
    for order in orders:
        shop.reaches(order, "CONFIRMED")
    shop.assert_sound()
    assert shop.stock(pen) == (70, 0)


def test_h5_redelivered_messages_change_nothing(shop, bus):
    pen = shop.product(stock=50)
    orders = [shop.order((pen, 1)) for _ in range(5)]
    for order in orders:
        shop.reaches(order, "CONFIRMED")
    shop.customer.must("POST", f"/orders/{orders[0]['id']}/cancel")
    shop.assert_sound()
    before = [shop.get(f"/orders/{order['id']}/timeline") for order in orders]
    bus.events()
    for message in list(bus.messages):
        kept = {name: message.properties[name] for name in ("type", "correlation_id")}
        for message_id in [message.properties["message_id"]] * 2:
            bus.publish_raw(message.properties["type"], message.body, message_id=message_id, **kept)
    marker = shop.order((pen, 1))
    shop.reaches(marker, "CONFIRMED")
    shop.assert_sound()
    assert [shop.get(f"/orders/{order['id']}/timeline") for order in orders] == before
    assert shop.stock(pen) == (45, 0)


def test_h5_the_same_events_under_new_ids_change_neither_stock_nor_money(shop, bus):
    pen = shop.product(stock=50)
    order = shop.order((pen, 1))
    shop.reaches(order, "CONFIRMED")
    shop.assert_sound()
    for message in [m for m in bus.messages if bus.events() and m.properties.get("correlation_id") == order["id"]]:
        bus.publish(EVENTS[message.properties["type"]].model_validate_json(message.body))
    shop.reaches(shop.order((pen, 1)), "CONFIRMED")
    shop.assert_sound()
    assert shop.stock(pen) == (48, 0)


def test_h7_an_order_accepted_before_a_crash_of_the_broker_is_decided_after_its_restart(shop):
    pen = shop.product(stock=10)
    orders = [shop.order((pen, 1)) for _ in range(5)]
    shop.servers.rabbitmq.kill()
    status, problem = shop.customer.request("POST", "/orders", {"items": [{"product_id": pen["id"], "quantity": 1}]})
    assert (status, problem["code"]) in {(503, "SERVICE_UNAVAILABLE"), (504, "UPSTREAM_TIMEOUT")}
    shop.servers.rabbitmq.start()
    shop.suite.wait_ready(READY_SECONDS)
    for order in orders:
        eventually(lambda order=order: shop.get(f"/orders/{order['id']}")["status"] in {"CONFIRMED", "CANCELLED"}, 40)
    shop.assert_sound()


def test_h8_an_order_from_before_the_first_start_of_its_consumers_is_handled(shop):
    log_began = len(shop.suite.log("orders").read_text())
    shop.stop("inventory", "payments", "notifications", "orders")
    queues = [
        queue_name(service, event)
        for service in ("inventory", "payments", "notifications")
        for event in EVENTS.values()
        if service in event.consumers
    ]
    with connect() as connection:
        for queue in queues:
            connection.channel().queue_delete(queue)
    shop.suite.start_service("orders")
    # Orders may not declare these queues, and takes no orders without them. The broker creates them at its start.
    eventually(lambda: "are not loaded" in shop.suite.log("orders").read_text()[log_began:], timeout=30)
    assert shop.customer.request("GET", "/orders?limit=1")[0] in {503, 504}
    shop.servers.rabbitmq.restart()
    eventually(lambda: shop.customer.request("GET", "/orders?limit=1")[0] == 200, timeout=60)
    with connect() as connection:
        for queue in queues:
            connection.channel().queue_declare(queue, passive=True)
    shop.start("inventory", "payments", "notifications")
    pen = shop.product(stock=5)
    shop.reaches(shop.order((pen, 1)), "CONFIRMED")
    shop.assert_sound()


def test_h9_an_event_that_cannot_be_handled_becomes_a_dead_letter_and_delays_no_other(shop, bus, caller):
    unknown = new_id()
    bus.publish(OrderConfirmed(order_id=unknown, user_id=new_id(), total_amount=Decimal("1.00"), currency="TRY"))
    shop.reaches(shop.order((shop.product(), 1)), "CONFIRMED")  # other orders are not affected
    for service in ("inventory", "payments"):
        rpc = getattr(caller, service)
        (letter,) = eventually(lambda rpc=rpc: rpc.list_dead_letters()["items"], timeout=30)
        assert letter["correlation_id"] in (None, str(unknown))
        assert (letter["queue"], letter["attempts"]) == (queue_name(service, OrderConfirmed), 6)
        assert "Missing" in letter["error"]
        assert json.loads(letter["body"])["order_id"] == str(unknown)
    # The cancellation creates the missing rows, so a replay of the confirmation succeeds now.
    bus.publish(OrderCancelled(order_id=unknown, user_id=new_id(), reason=CancelReason.USER))
    for service in ("inventory", "payments"):
        rpc = getattr(caller, service)
        eventually(lambda service=service: bus.is_drained(queue_name(service, OrderCancelled)))
        eventually(lambda rpc=rpc: replay(rpc))
    shop.assert_sound()


def replay(rpc):
    """Replay the first dead letter, if there is one. Returns whether the service has none left."""
    letters = rpc.list_dead_letters()["items"]
    if letters:
        rpc.replay_dead_letter(letters[0]["id"])
    return not rpc.list_dead_letters()["items"]


@pytest.mark.parametrize("silent", ["inventory", "payments"])
def test_h10_an_order_is_cancelled_at_its_deadline_if_a_participant_does_not_reply(shop, silent):
    pen = shop.product(stock=5)
    shop.stop(silent)
    order = shop.order((pen, 1))
    other = "stock_status" if silent == "payments" else "payment_status"
    eventually(lambda: shop.get(f"/orders/{order['id']}")[other] in {"RESERVED", "AUTHORIZED"})
    let_the_deadline_pass(order)
    assert shop.reaches(order, "CANCELLED")["cancel_reason"] == "TIMEOUT"
    shop.start(silent)
    shop.assert_sound()
    assert shop.stock(pen) == (5, 0)


def test_h10_replies_that_arrived_in_time_are_handled_before_the_deadline_after_a_pause(shop, bus):
    pen = shop.product(stock=5)
    with database("inventory").begin() as holder:  # inventory cannot reserve while the row is locked
        holder.execute(sqlalchemy.text("SELECT FROM stock WHERE product_id = :id FOR UPDATE"), {"id": pen["id"]})
        order = shop.order((pen, 1))
        eventually(lambda: shop.get(f"/orders/{order['id']}")["payment_status"] == "AUTHORIZED")
        shop.suite.kill("orders", signal.SIGSTOP)  # the last reply stays in the queue
        stopped_at = time.monotonic()
    try:
        bus.wait_for("inventory.stock_reserved", order["id"])
        let_the_deadline_pass(order)
        # The deadline timer of orders takes only a longer standstill for a gap, after which it handles replies first.
        eventlet.sleep(max(0.0, stopped_at + TIMER_GAP_SECONDS + 1.0 - time.monotonic()))
    finally:
        shop.suite.kill("orders", signal.SIGCONT)
    shop.suite.wait_ready(READY_SECONDS)
    shop.reaches(order, "CONFIRMED")
    shop.assert_sound()


def let_the_deadline_pass(order):
    """Set the deadline of an undecided order to the current time, instead of waiting for it."""
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("SET LOCAL lock_timeout = '20s'"))
        now = "UPDATE orders SET deadline_at = clock_timestamp() WHERE id = :id AND status = 'CREATED'"
        assert connection.execute(sqlalchemy.text(now), {"id": order["id"]}).rowcount == 1


def test_h11_cancel_and_confirm_race_for_the_order(shop):
    pen = shop.product(stock=1000)

    def order_and_cancel():
        mine = client(shop)
        order = mine.must("POST", "/orders", {"items": [{"product_id": pen["id"], "quantity": 1}]})
        return order, mine.request("POST", f"/orders/{order['id']}/cancel")[0]

    outcomes = at_once([order_and_cancel] * 20)
    shop.assert_sound()
    assert {status for _, status in outcomes} == {202}
    assert {shop.get(f"/orders/{order['id']}")["status"] for order, _ in outcomes} == {"CANCELLED"}
    assert shop.stock(pen) == (1000, 0)


def price_of_replica(product):
    """The price of the product in the database of orders."""
    with database("orders").connect() as connection:
        found = sqlalchemy.text("SELECT price FROM product_replicas WHERE id = :id")
        return connection.scalar(found, {"id": product["id"]})


def test_h12_a_forged_price_and_an_outdated_price_are_refused(shop):
    pen = shop.product("10.00")
    line = {"product_id": pen["id"], "quantity": 1}
    forged = {"items": [line | {"price_snapshot": "0.01"}], "total_amount": "0.01"}
    status, problem = shop.customer.request("POST", "/orders", forged)
    assert (status, problem["code"]) == (409, "PRICE_CHANGED")
    assert {error["field"] for error in problem["errors"]} == {"items[0].price_snapshot", "total_amount"}
    shop.admin.must("PATCH", f"/products/{pen['id']}", {"price": "11.00"})
    # On a busy machine catalog may not respond in time. Then the replica decides, which the event has updated.
    eventually(lambda: price_of_replica(pen) == Decimal("11.00"))
    assert shop.customer.request("POST", "/orders", {"items": [line], "total_amount": "10.00"})[0] == 409
    assert shop.customer.must("POST", "/orders", {"items": [line], "total_amount": "11.00"})["total_amount"] == "11.00"


def test_h13_opposite_orders_do_not_deadlock(shop):
    pen, ink = shop.product(stock=1000), shop.product(stock=1000)

    def buy(*lines):
        return lambda: shop.order(*lines, client=client(shop))

    orders = at_once([buy((pen, 1), (ink, 1)), buy((ink, 1), (pen, 1))] * 15)
    for order in orders:
        shop.reaches(order, "CONFIRMED")
    shop.assert_sound()
    assert shop.stock(pen) == shop.stock(ink) == (970, 0)


def test_h14_the_last_unit_is_sold_once(shop):
    last, plenty = shop.product(stock=1), shop.product(stock=100)
    orders = at_once([lambda: shop.order((last, 1), (plenty, 1), client=client(shop))] * 16)
    shop.assert_sound()
    ends = [shop.get(f"/orders/{order['id']}") for order in orders]
    assert sorted(end["status"] for end in ends) == ["CANCELLED"] * 15 + ["CONFIRMED"]
    assert {end["cancel_reason"] for end in ends if end["status"] == "CANCELLED"} == {"OUT_OF_STOCK"}
    assert shop.stock(last) == (0, 0)
    assert shop.stock(plenty) == (99, 0)


def test_ids_are_version_7(shop):
    assert UUID(shop.order((shop.product(), 1))["id"]).version == 7
