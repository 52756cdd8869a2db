"""A signed webhook of an order, from the API to a receiver, verified by the reference library."""

from standardwebhooks.webhooks import Webhook

from tests.receiver import Receiver
from tests.support import eventually


def test_an_order_is_received_as_a_signed_webhook(shop):
    receiver = Receiver()
    try:
        webhook = shop.customer.must("POST", "/webhooks", {"url": receiver.url, "events": ["order.*"]})
        order = shop.order((shop.product(), 1))
        eventually(lambda: receiver.of_type("order.created") and receiver.of_type("order.confirmed"))
        for received in receiver.received:
            content = Webhook(webhook["secret"]).verify(received.body, received.headers)
            assert content["data"]["order_id"] == order["id"]
        ids = {entry["event_id"] for entry in shop.get(f"/orders/{order['id']}/timeline", shop.customer)["items"]}
        assert {received.id for received in receiver.received} <= ids
        path = f"/webhooks/{webhook['id']}"
        assert eventually(lambda: shop.get(f"{path}/deliveries?state=DELIVERED", shop.customer)["items"][1:])
        shop.customer.must("DELETE", path)
    finally:
        receiver.stop()
    shop.assert_sound()
