"""Places four orders with different outcomes and prints their events: `make demo`, or `python -m deploy.demo [url]`.

It uses the accounts and products of the demo seed over the REST API, and exits with 1 if a story does not end as
expected.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy.seed import ADMIN, CUSTOMER, DEFAULT_PASSWORD

STORY_SECONDS = 30.0  # an order must reach its expected end within so many seconds
QUIET_SECONDS = 0.7  # after so many seconds without a new event, a story has ended


class DemoError(Exception):
    """The API returned an unexpected response, which the message contains."""


@dataclass
class Api:
    """The REST API, as one user."""

    url: str
    token: str | None = None

    def call(self, method: str, path: str, body: object = None, *, missing: Any = None) -> Any:
        """Return the JSON body. For a 404, return `missing` if it is given. Raises DemoError for other errors."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code == 404 and missing is not None:
                return missing
            text = error.read(2000).decode(errors="replace")
            raise DemoError(f"{method} {path} returned {error.code}: {text}") from None
        except OSError as error:
            raise DemoError(f"{method} {path} got no response: {error}. Does the suite run at {self.url}?") from None

    def login(self, email: str, password: str) -> "Api":
        """Return the API as this user."""
        session = self.call("POST", "/users/login", {"email": email, "password": password})
        return Api(self.url, session["access_token"])


@dataclass(frozen=True)
class Story:
    """One story: what the customer does, and how the order must end."""

    title: str
    sku: str
    quantity: int
    ends: Callable[[dict[str, Any]], bool]
    cancels: bool = False


def _confirmed(order: dict[str, Any]) -> bool:
    return (order["status"], order["stock_status"], order["payment_status"]) == ("CONFIRMED", "COMMITTED", "CAPTURED")


def _out_of_stock(order: dict[str, Any]) -> bool:
    # Payments may receive the cancellation first. Then no payment exists, and the status stays PENDING.
    return order["cancel_reason"] == "OUT_OF_STOCK" and order["payment_status"] in ("VOIDED", "PENDING")


def _declined(order: dict[str, Any]) -> bool:
    return order["cancel_reason"] == "PAYMENT_FAILED" and order["stock_status"] in ("RELEASED", "PENDING")


def _cancelled(order: dict[str, Any]) -> bool:
    undone = (order["stock_status"], order["payment_status"])
    return order["cancel_reason"] == "USER" and undone == ("RETURNED", "REFUNDED")


STORIES = (
    Story("Confirmed: there is stock, and the payment goes through", "TEA-RIZE-1000", 2, _confirmed),
    Story("Out of stock: nothing is left, so the payment is undone", "SAMOVAR-BRASS-5L", 1, _out_of_stock),
    Story("Payment declined: over 10,000, so the stock is given back", "CARPET-SILK-150", 1, _declined),
    Story("Cancelled by the customer: stock returned, money refunded", "HONEY-PINE-850", 3, _cancelled, cancels=True),
)


def tell(url: str) -> int:
    """Run all stories on the suite at `url`; returns the exit code."""
    password = os.environ.get("DEMO_PASSWORD") or DEFAULT_PASSWORD
    try:
        admin, customer = Api(url).login(ADMIN, password), Api(url).login(CUSTOMER, password)
        ends_well = [_run(story, number, admin, customer) for number, story in enumerate(STORIES, start=1)]
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"\n{sum(ends_well)} of {len(STORIES)} stories ended as expected.")
    return 0 if all(ends_well) else 1


def _run(story: Story, number: int, admin: Api, customer: Api) -> bool:
    print(f"\n{number}. {story.title}", flush=True)
    found = customer.call("GET", f"/products?sku={story.sku}")["items"]
    if not found:
        raise DemoError(f"there is no product {story.sku}; `python -m deploy.seed` creates the demo shop")
    product = found[0]
    print(f"   {story.quantity} x {product['name']} at {product['price']} {product['currency']}")
    print(f"   before: {_stock(admin, product)}")
    order = customer.call("POST", "/orders", {"items": [{"product_id": product["id"], "quantity": story.quantity}]})
    print(f"   order {order['id']} of {order['total_amount']} {order['currency']} is placed: {order['status']}")
    well = _follow(story, order["id"], customer)
    order = customer.call("GET", f"/orders/{order['id']}")
    payment = customer.call("GET", f"/payments/order/{order['id']}", missing={"status": "none was made", "amount": ""})
    reason = f" ({order['cancel_reason']})" if order["cancel_reason"] else ""
    print(f"   after:  {_stock(admin, product)}")
    print(f"   payment {payment['status']} {payment['amount']}".rstrip())
    print(f"   order   {order['status']}{reason}, stock {order['stock_status']}, payment {order['payment_status']}")
    if not well:
        print("   This is not the expected end.")
    return well


def _stock(admin: Api, product: dict[str, Any]) -> str:
    none = {"on_hand": 0, "reserved": 0, "available": 0}
    stock = admin.call("GET", f"/inventory/{product['id']}", missing=none)
    return f"{stock['on_hand']} on hand, {stock['reserved']} reserved, {stock['available']} available"


def _follow(story: Story, order_id: str, customer: Api) -> bool:
    """Print events as they occur, until the order has its expected end and no events follow; False if it does not."""
    began = last = time.monotonic()
    seen: set[str] = set()
    cancels = story.cancels
    while time.monotonic() < began + STORY_SECONDS:
        for entry in customer.call("GET", f"/orders/{order_id}/timeline")["items"]:
            if entry["event_id"] not in seen:
                seen.add(entry["event_id"])
                last = time.monotonic()
                print(f"     {entry['at'][11:23]}  {entry['service']:<10} {entry['event']}", flush=True)
        order = customer.call("GET", f"/orders/{order_id}")
        if cancels and _confirmed(order):
            print("     ... and the customer cancels")
            customer.call("POST", f"/orders/{order_id}/cancel")
            cancels = False
        elif story.ends(order) and time.monotonic() > last + QUIET_SECONDS:
            return True
        time.sleep(0.05)
    return False


if __name__ == "__main__":
    sys.exit(tell(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000")))
