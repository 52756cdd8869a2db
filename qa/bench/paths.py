"""Calls of the API operations that read or change growing tables.

Every GET operation is found in the API's own OpenAPI document, and called. This file adds calls with filters, and calls
that change data.
"""

import re
from datetime import timedelta
from urllib.parse import quote
from uuid import uuid4

from docs.examples import import_file
from extensions.http.routing.declaration import EVENT_STREAM
from qa.support.client import Client, place

PARAMETER = re.compile(r"\{(\w+)\}")
# Operations that read whole tables on purpose, when an administrator asks.
READ_WHOLE_TABLES = {"/admin/consistency", "/products/export"}
PASSWORD = "correct horse 7 battery"


def walk(url, customer, admin, order, product):
    """Call every operation as a customer, as an administrator and as a new user. Raises if one fails.

    `customer` and `admin` are clients; `order` is (id, creation time) of an old, delivered order of the customer;
    `product` is a product that can be ordered.
    """
    user_id, paid = customer.must("GET", "/users/me")["id"], customer.must("GET", f"/payments/order/{order[0]}")["id"]
    webhook, delivery = _life_of_a_webhook(customer)
    ids = {"order_id": order[0], "product_id": product["id"], "payment_id": paid, "user_id": user_id}
    ids |= {"webhook_id": webhook["id"], "delivery_id": delivery["id"]}
    imports = _imports(url, admin, product)
    document = admin.must("GET", "/openapi.json")
    for path, access in _documented_reads(document, ids, imports):
        (admin if access == "admin" else customer).must("GET", path)
    for path, access in _documented_reads(document, ids, imports, streams=True):
        (admin if access == "admin" else customer).first_line(path)
    for path in (*_reads(order, product), f"/webhooks/{webhook['id']}/deliveries?state=PENDING"):
        customer.must("GET", path)
    page = customer.must("GET", "/orders?limit=1")
    if page["next_cursor"]:
        customer.must("GET", f"/orders?limit=1&cursor={page['next_cursor']}")
    for path in _administrators_reads(order, user_id):
        admin.must("GET", path)
    _life_of_orders(customer, admin, product)
    admin.must("PATCH", f"/products/{product['id']}", {"name": "Renamed"})
    admin.must("POST", f"/inventory/{product['id']}/adjustments", {"delta": 1, "reason": "found one"})
    admin.must("PUT", f"/inventory/{product['id']}/threshold", {"low_stock": 1})
    _life_of_a_session(url)
    customer.must("DELETE", f"/webhooks/{webhook['id']}")


def _imports(url, admin, product):
    """Import a product and its stock. Returns the ids of the imports by the paths that show one."""
    files = {
        "/products/import": f"sku,name,price\nIMPORTED-{uuid4().hex[:8]},Imported,1.00\n",
        "/inventory/import": f"product_id,quantity\n{product['id']},1000\n",
    }
    found = {}
    for path, file in files.items():
        headers = {"Authorization": f"Bearer {admin.token}", "Content-Type": "text/csv"}
        connection = import_file.connect(url)
        _, imported = import_file.call(connection, "POST", path, file, headers)
        connection.close()
        for shown in (f"{path}s/{{import_id}}", f"{path}s/{{import_id}}/events"):
            found[shown] = {"import_id": imported["id"]}
    return found


def _documented_reads(document, ids, own_ids, *, streams=False):
    """Yield (path, access) of each GET operation that identifies its caller, with the ids of these path parameters.

    `own_ids` are the ids for single paths. `streams`: only those whose response has no end, else only the others.
    """
    for template, operations in document["paths"].items():
        operation = operations.get("get", {"x-access": "anyone"})
        if operation["x-access"] == "anyone" or "x-alias-of" in operation or template in READ_WHOLE_TABLES:
            continue
        if streams != (EVENT_STREAM in operation["responses"]["200"].get("content", {})):
            continue
        known = ids | own_ids.get(template, {})
        unknown = [name for name in PARAMETER.findall(template) if name not in known]
        if unknown:
            message = f"GET {template}: add an id for {', '.join(unknown)} to `ids` in qa/bench/paths.py"
            raise KeyError(message)
        yield template.format(**known), operation["x-access"]


def _reads(order, product):
    order_id, at = order
    day = f"created_after={_time(at - timedelta(days=1))}&created_before={_time(at + timedelta(days=1))}"
    yield from ("/orders?status=DELIVERED", f"/orders?{day}", "/payments?status=CAPTURED")
    yield from (f"/payments?order_id={order_id}", "/products?sort=price", "/products?sort=-name", "/products?sort=sku")
    yield from (f"/products?sku={product['sku']}", f"/products?search={quote(product['name'])}")
    yield from (
        "/products?search=stor&sort=price",
        "/products?search=s",
        "/products?search=stroed",
        "/products?search=tored",
    )
    yield "/products?min_price=20&max_price=21&sort=price"


def _administrators_reads(order, user_id):
    _order_id, at = order
    day = f"created_after={_time(at - timedelta(days=1))}&created_before={_time(at + timedelta(days=1))}"
    yield from ("/orders", "/orders?status=CREATED", "/orders?status=DELIVERED", f"/orders?user_id={user_id}")
    yield from (f"/orders?{day}", "/admin/sagas?stuck=true", "/payments", "/payments?status=CAPTURED")


def _life_of_a_webhook(customer):
    """Return an endpoint that refuses connections, and a delivery to it. It also receives the orders that follow."""
    webhook = customer.must("POST", "/webhooks", {"url": "http://127.0.0.77:9999/"})
    path = f"/webhooks/{webhook['id']}"
    customer.must("PATCH", path, {"events": ["*"]})
    customer.must("POST", f"{path}/rotate-secret")
    delivery = customer.must("POST", f"{path}/test")
    customer.must("POST", f"{path}/replay", {"since": "2026-01-01T00:00:00Z"})
    customer.must("POST", f"/webhooks/deliveries/{delivery['id']}/retry")
    return webhook, delivery


def _life_of_orders(customer, admin, product):
    body = {"items": [{"product_id": product["id"], "quantity": 1}]}
    _, cancelled, _, _ = place(customer, body)
    customer.must("POST", f"/orders/{cancelled['id']}/cancel")
    _, delivered, _, _ = place(customer, body)
    admin.must("POST", f"/orders/{delivered['id']}/ship")  # repeated until the order is confirmed
    admin.must("POST", f"/orders/{delivered['id']}/deliver")
    paid = customer.must("GET", f"/payments/order/{delivered['id']}")
    refund = {"amount": "0.01", "reason": "a late parcel"}
    admin.must("POST", f"/payments/{paid['id']}/refund", refund)  # repeated until the payment is captured


def _life_of_a_session(url):
    account = {"email": f"{uuid4()}@example.com", "password": PASSWORD}
    client = Client(url)
    client.must("POST", "/users/register", account)
    session = client.must("POST", "/users/login", account)
    session = client.must("POST", "/users/refresh-token", {"refresh_token": session["refresh_token"]})
    client.token = session["access_token"]
    client.must("PATCH", "/users/me", {"language": "tr"})
    client.must("POST", "/users/me/verification-email")
    client.must("POST", "/users/password-reset", {"email": account["email"]})
    client.must("PUT", "/users/me/password", {"current_password": PASSWORD, "new_password": f"{PASSWORD}, changed"})
    client.must("POST", "/users/logout", {"refresh_token": session["refresh_token"]})
    session = client.must("POST", "/users/login", {**account, "password": f"{PASSWORD}, changed"})
    client.token = session["access_token"]
    client.request("DELETE", "/users/me", {"password": f"{PASSWORD}, changed"})
    client.close()


def _time(at):
    return quote(at.isoformat())
