"""One call of each API operation that reads or changes a growing table."""

from datetime import timedelta
from urllib.parse import quote
from uuid import uuid4

from qa.support.client import Client, place

PASSWORD = "correct horse 7 battery"


def walk(url, customer, admin, order, product):
    """Call every operation as a customer, as an administrator and as a new user. Raises if one fails.

    `customer` and `admin` are clients; `order` is (id, creation time) of an old, delivered order of the customer;
    `product` is a product that can be ordered.
    """
    for path in _reads(order, product):
        customer.must("GET", path)
    page = customer.must("GET", "/orders?limit=1")
    if page["next_cursor"]:
        customer.must("GET", f"/orders?limit=1&cursor={page['next_cursor']}")
    for path in _administrators_reads(order, customer.must("GET", "/users/me")["id"], product):
        admin.must("GET", path)
    _life_of_orders(customer, admin, product)
    admin.must("PATCH", f"/products/{product['id']}", {"name": "Renamed"})
    admin.must("POST", f"/inventory/{product['id']}/adjustments", {"delta": 1, "reason": "found one"})
    _life_of_a_session(url)


def _reads(order, product):
    order_id, at = order
    day = f"created_after={_time(at - timedelta(days=1))}&created_before={_time(at + timedelta(days=1))}"
    yield from ("/orders", "/orders?status=DELIVERED", f"/orders?{day}", f"/orders/{order_id}")
    yield from (f"/orders/{order_id}/timeline", "/payments", "/payments?status=CAPTURED")
    yield from (f"/payments?order_id={order_id}", f"/payments/order/{order_id}", "/notifications")
    yield from ("/products", "/products?sort=price", "/products?sort=-name", "/products?sort=sku")
    yield from (f"/products?sku={product['sku']}", f"/products?search={quote(product['name'])}")
    yield from ("/products?min_price=20&max_price=21&sort=price", f"/products/{product['id']}")


def _administrators_reads(order, user_id, product):
    _order_id, at = order
    day = f"created_after={_time(at - timedelta(days=1))}&created_before={_time(at + timedelta(days=1))}"
    yield from ("/orders", "/orders?status=CREATED", "/orders?status=DELIVERED", f"/orders?user_id={user_id}")
    yield from (f"/orders?{day}", "/admin/sagas", "/admin/sagas?stuck=true", "/admin/dead-letters")
    yield from ("/inventory", f"/inventory/{product['id']}", f"/inventory/{product['id']}/movements")
    yield from ("/payments", "/payments?status=CAPTURED", "/users")


def _life_of_orders(customer, admin, product):
    body = {"items": [{"product_id": product["id"], "quantity": 1}]}
    _, cancelled, _, _ = place(customer, body)
    customer.must("POST", f"/orders/{cancelled['id']}/cancel")
    _, delivered, _, _ = place(customer, body)
    admin.must("POST", f"/orders/{delivered['id']}/ship")  # repeated until the order is confirmed
    admin.must("POST", f"/orders/{delivered['id']}/deliver")


def _life_of_a_session(url):
    account = {"email": f"{uuid4()}@example.com", "password": PASSWORD}
    client = Client(url)
    client.must("POST", "/users/register", account)
    session = client.must("POST", "/users/login", account)
    session = client.must("POST", "/users/refresh-token", {"refresh_token": session["refresh_token"]})
    client.token = session["access_token"]
    client.must("POST", "/users/logout", {"refresh_token": session["refresh_token"]})
    client.close()


def _time(at):
    return quote(at.isoformat())
