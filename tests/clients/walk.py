"""Walks from registration to a delivered order with the client that openapi-python-client makes.

The test runs it with the Python of var/clients, and the folder of the generated package `shop` on PYTHONPATH.
"""

import os
import time
from uuid import uuid4

from shop import AuthenticatedClient, Client
from shop.api.inventory import create_stock
from shop.api.orders import create_order, deliver_order, get_order, list_orders, ship_order
from shop.api.products import create_product, get_product
from shop.api.users import get_profile, login, register
from shop.models import (
    CreateOrder,
    CreateProduct,
    Credentials,
    NewOrderItem,
    OrderPage,
    OrderStatus,
    OrderView,
    Problem,
    ProblemCode,
    ProductView,
    SessionView,
    SetStock,
    StockView,
    UserView,
)

URL, PASSWORD = os.environ["GATEWAY_URL"], os.environ["PASSWORD"]
DEADLINE = time.monotonic() + float(os.environ["SECONDS"])


def expect(kind, value):
    """Return `value`, which must have the type that the client promises."""
    assert type(value) is kind, f"{kind.__name__} expected: {value}"
    return value


def client(session):
    return AuthenticatedClient(base_url=URL, token=session.access_token, timeout=60)


def reach(user, order_id, status):
    while time.monotonic() < DEADLINE:
        order = expect(OrderView, get_order.sync(order_id, client=user))
        if order.status == status:
            return order
        time.sleep(0.1)
    raise AssertionError(f"the order did not become {status}")


def main():
    anyone = Client(base_url=URL, timeout=60)
    account = Credentials(email=f"{uuid4().hex}@example.com", password=PASSWORD)
    user = client(expect(SessionView, register.sync(client=anyone, body=account, idempotency_key=uuid4().hex)))
    assert expect(UserView, get_profile.sync(client=user)).email == account.email
    boss = Credentials(email=os.environ["ADMIN"], password=PASSWORD)
    admin = client(expect(SessionView, login.sync(client=anyone, body=boss)))

    wanted = CreateProduct(sku=uuid4().hex, name="Çay", price="12.50")
    product = expect(ProductView, create_product.sync(client=admin, body=wanted))
    assert expect(ProductView, get_product.sync(product.id, client=user)).price == "12.50"
    stock = SetStock(product_id=product.id, product_sku=product.sku, quantity=10)
    assert expect(StockView, create_stock.sync(client=admin, body=stock)).available == 10

    basket = CreateOrder(items=[NewOrderItem(product_id=product.id, quantity=2)])
    key = uuid4().hex
    order = expect(OrderView, create_order.sync(client=user, body=basket, idempotency_key=key))
    again = create_order.sync_detailed(client=user, body=basket, idempotency_key=key)
    assert (again.parsed, again.headers["idempotent-replayed"]) == (order, "true")
    assert (order.total_amount, order.items[0].line_total) == ("25.00", "25.00")
    reach(user, order.id, OrderStatus.CONFIRMED)

    refused = expect(Problem, ship_order.sync(order.id, client=user))
    assert (refused.status, refused.code) == (403, ProblemCode.PERMISSION_DENIED)
    unknown = expect(Problem, get_order.sync(uuid4(), client=user))
    assert (unknown.status, unknown.code) == (404, ProblemCode.ORDER_NOT_FOUND)
    empty = expect(Problem, create_order.sync(client=user, body=CreateOrder(items=[])))
    assert (empty.code, empty.errors[0].field) == (ProblemCode.VALIDATION_ERROR, "items")

    assert expect(OrderView, ship_order.sync(order.id, client=admin)).status == OrderStatus.SHIPPED
    assert expect(OrderView, deliver_order.sync(order.id, client=admin)).status == OrderStatus.DELIVERED
    orders = expect(OrderPage, list_orders.sync(client=user, status=OrderStatus.DELIVERED, limit=5))
    assert [item.id for item in orders.items] == [order.id]
    print("delivered", order.id)


main()
