"""Four orders over HTTP, from start to end, with checks of their stock and payments."""

from qa.support.client import Client
from tests.support import eventually


def events_of(shop, order):
    return [entry["event"] for entry in shop.get(f"/orders/{order['id']}/timeline", shop.customer)["items"]]


def test_an_order_is_confirmed_shipped_and_delivered(shop):
    pen, book = shop.product("10.50", 10), shop.product("99.99", 5)
    order = shop.order((pen, 2), (book, 1))
    assert (order["status"], order["total_amount"]) == ("CREATED", "120.99")

    shop.reaches(order, "CONFIRMED")
    shop.has_stock(pen, 8)
    shop.has_stock(book, 4)
    shop.has_payment(order, "CAPTURED")
    assert shop.payment(order)["amount"] == "120.99"

    assert shop.admin.must("POST", f"/orders/{order['id']}/ship")["status"] == "SHIPPED"
    assert shop.admin.must("POST", f"/orders/{order['id']}/deliver")["status"] == "DELIVERED"
    assert shop.customer.request("POST", f"/orders/{order['id']}/cancel")[0] == 409
    shop.assert_sound()
    events = events_of(shop, order)
    assert events[0] == "order.created"
    assert sorted(events) == [
        "inventory.stock_committed",
        "inventory.stock_reserved",
        "order.confirmed",
        "order.created",
        "order.delivered",
        "order.shipped",
        "payment.authorized",
        "payment.captured",
    ]


def test_an_order_of_more_than_the_available_stock_is_cancelled_and_releases_everything(shop):
    pen, book = shop.product(stock=10), shop.product(stock=1)
    order = shop.order((pen, 1), (book, 2))
    assert shop.reaches(order, "CANCELLED")["cancel_reason"] == "OUT_OF_STOCK"
    shop.has_payment(order, "VOIDED")
    assert (shop.stock(pen), shop.stock(book)) == ((10, 0), (1, 0))
    shop.assert_sound()


def test_a_payment_over_the_limit_is_declined_and_one_of_exactly_the_limit_is_approved(shop):
    expensive = shop.product("10000.00", 10)
    cent = shop.product("0.01", 10)
    passes, fails = shop.order((expensive, 1)), shop.order((expensive, 1), (cent, 1))
    assert shop.reaches(fails, "CANCELLED")["cancel_reason"] == "PAYMENT_FAILED"
    shop.reaches(passes, "CONFIRMED")
    assert shop.payment(fails)["status"] == "FAILED"
    shop.has_stock(expensive, 9)
    shop.has_stock(cent, 10)
    shop.assert_sound()


def test_a_confirmed_order_that_its_owner_cancels_is_returned_and_refunded(shop):
    pen = shop.product(stock=10)
    order = shop.order((pen, 3))
    shop.reaches(order, "CONFIRMED")
    shop.has_payment(order, "CAPTURED")
    shop.has_stock(pen, 7)
    status, cancelled = shop.customer.request("POST", f"/orders/{order['id']}/cancel")
    assert (status, cancelled["status"], cancelled["cancel_reason"]) == (202, "CANCELLED", "USER")
    shop.has_stock(pen, 10)
    shop.has_payment(order, "REFUNDED")
    shop.assert_sound()
    told = {"order.created", "order.confirmed", "order.cancelled", "payment.refunded"}
    eventually(lambda: kinds_told(shop, order) == told)


def kinds_told(shop, order):
    """The kinds of the notifications about an order."""
    notes = shop.get("/notifications?limit=100", shop.customer)["items"]
    return {note["kind"] for note in notes if note["order_id"] == order["id"]}


def test_a_user_cannot_read_or_cancel_the_orders_of_another_user(shop):
    order = shop.order((shop.product(), 1))
    stranger = Client(shop.url)
    credentials = {"email": f"{order['id']}@example.com", "password": "a-stranger's-password"}
    stranger.token = stranger.must("POST", "/users/register", credentials)["access_token"]
    for path in (f"/orders/{order['id']}", f"/orders/{order['id']}/timeline", f"/payments/order/{order['id']}"):
        assert stranger.request("GET", path)[0] == 404
    assert stranger.request("POST", f"/orders/{order['id']}/cancel")[0] == 404
    assert stranger.request("POST", f"/orders/{order['id']}/ship")[0] == 403
    assert stranger.request("GET", "/inventory")[0] == 403
    assert stranger.must("GET", "/orders")["items"] == []


def test_the_alias_paths_of_the_original_design_work(shop):
    pen = shop.product(stock=10)
    status, order = shop.customer.request(
        "POST", "/orders/create-order/", {"items": [{"product_id": pen["id"], "quantity": 1}]}
    )
    assert status == 201
    assert shop.customer.request("GET", f"/orders/{order['id']}/")[1]["id"] == order["id"]
    assert order["id"] in {item["id"] for item in shop.get("/orders/", shop.customer)["items"]}
    assert shop.get("/users/user-profile/", shop.customer)["email"] == "demo@example.com"


def test_an_order_is_refunded_in_part_and_then_cancelled(shop):
    pen = shop.product("20.00", 10)
    shop.admin.must("PUT", f"/inventory/{pen['id']}/threshold", {"low_stock": 9})
    address = {"name": "Ayşe Demir", "line1": "Bağdat Caddesi 123", "city": "İstanbul", "country": "TR"}
    body = {"items": [{"product_id": pen["id"], "quantity": 3}], "shipping_address": address}
    order = shop.customer.must("POST", "/orders", body)
    assert order["shipping_address"] == address | {"line2": None, "postal_code": None}
    shop.has_payment(order, "CAPTURED")
    assert shop.admin.must("GET", f"/inventory/{pen['id']}")["is_low"]
    payment = shop.payment(order)
    part = {"amount": "15.00", "reason": "a late parcel"}
    assert shop.admin.must("POST", f"/payments/{payment['id']}/refund", part)["status"] == "PENDING"
    shop.has_payment(order, "PARTIALLY_REFUNDED")
    refused, problem = shop.admin.request("POST", f"/payments/{payment['id']}/refund", part | {"amount": "45.01"})
    assert (refused, problem["code"]) == (409, "INVALID_STATE")
    shop.assert_sound()
    shop.customer.must("POST", f"/orders/{order['id']}/cancel")
    shop.has_payment(order, "REFUNDED")
    shop.assert_sound()
    refunds = shop.admin.must("GET", f"/payments/{payment['id']}/refunds")["items"]
    assert [each["amount"] for each in refunds] == ["45.00", "15.00"]
    events = events_of(shop, order)
    assert events.index("payment.partially_refunded") < events.index("payment.refunded")
