"""A reader of docs/api.md and /openapi.json receives a signed webhook of an order, and verifies it by a library."""

import os
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from qa.support.client import Client
from tests.receiver import Receiver
from tests.support import eventually

PASSWORD = "a long password of hers"
TYPES = {"order.created", "order.confirmed", "order.shipped", "order.delivered", "payment.partially_refunded"}


@pytest.fixture
def receiver():
    started = Receiver()
    yield started
    started.stop()


def example():
    """The verification by a library, from the document."""
    text = (Path(__file__).parents[2] / "docs/api.md").read_text()
    return re.search(r"^```python\n(.*?)^```\n", text, re.MULTILINE | re.DOTALL)[1]


def verified(received, secret):
    values = {"secret": secret, "body": received.body, "headers": received.headers}
    exec(example(), values)
    return values["event"]


def validate(event, received, document):
    """Compare a webhook with the document of the API."""
    operation = document["webhooks"][event["type"]]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": document["components"]}).validate(event)
    for reference in operation["parameters"]:
        header = document["components"]["parameters"][reference["$ref"].rpartition("/")[2]]
        assert re.search(header["schema"].get("pattern", ""), received.headers[header["name"]])


def test_an_order_is_received_as_signed_webhooks(shop, receiver):
    customer = Client(shop.url)
    account = {"email": f"webhooks-{os.urandom(4).hex()}@example.com", "password": PASSWORD}
    customer.token = customer.must("POST", "/users/register", account)["access_token"]
    webhook = customer.must("POST", "/webhooks", {"url": receiver.url})
    order = shop.order((shop.product(), 2), client=customer)
    shop.has_payment(order, "CAPTURED")
    shop.admin.must("POST", f"/orders/{order['id']}/ship")
    shop.admin.must("POST", f"/orders/{order['id']}/deliver")
    refund = {"amount": "1.00", "reason": "a test"}
    shop.admin.must("POST", f"/payments/{shop.payment(order)['id']}/refund", refund)

    document = shop.get("/openapi.json")
    found = {}

    def receive():
        for received in receiver.received:
            found[received.id] = event = verified(received, webhook["secret"])
            assert event["data"]["order_id"] == order["id"]
            validate(event, received, document)
        return {event["type"] for event in found.values()} == TYPES

    eventually(receive)
    timeline = shop.get(f"/orders/{order['id']}/timeline", customer)["items"]
    published = {entry["event_id"]: entry["event"] for entry in timeline}
    assert {event_id: event["type"] for event_id, event in found.items()}.items() <= published.items()
    with pytest.raises(WebhookVerificationError):
        Webhook(webhook["secret"]).verify(receiver.received[0].body + b" ", receiver.received[0].headers)

    path = f"/webhooks/{webhook['id']}"
    eventually(lambda: len(shop.get(f"{path}/deliveries?state=DELIVERED", customer)["items"]) == len(TYPES))
    customer.must("DELETE", path)
    shop.assert_sound()
