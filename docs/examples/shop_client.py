"""A client of the order suite, to copy and change. It needs only httpx.

    python docs/examples/shop_client.py http://127.0.0.1:8000

registers a customer, orders two packs of coffee, and waits until the order is decided.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx

TRIES = 6
DECIDED_WITHIN_SECONDS = 60.0


class Problem(Exception):
    """An error response: `code` is for programs, `errors` lists the wrong fields."""

    def __init__(self, response: httpx.Response) -> None:
        body = response.json()
        self.status, self.code, self.errors = response.status_code, body["code"], body.get("errors", [])
        super().__init__(f"{self.status} {self.code}: {body['detail']} (request {body['request_id']})")


class Shop:
    """The API for one user. A failed call is repeated. This is safe because each POST has an idempotency key."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)
        self._refresh_token = ""

    def register(self, email: str, password: str) -> dict[str, Any]:
        """Register an account and use it. Returns the user."""
        return self._begin(self.call("POST", "/users/register", {"email": email, "password": password}))

    def log_in(self, email: str, password: str) -> dict[str, Any]:
        """Log in and use this account. Returns the user."""
        return self._begin(self.call("POST", "/users/login", {"email": email, "password": password}))

    def products(self, **filters: str) -> Iterator[dict[str, Any]]:
        """Yield all products that match the filters."""
        page = self.call("GET", "/products", query=filters)
        yield from page["items"]
        while page["next_cursor"]:
            page = self.call("GET", "/products", query={**filters, "cursor": page["next_cursor"]})
            yield from page["items"]

    def order(self, product: dict[str, Any], quantity: int) -> dict[str, Any]:
        """Order a product at the price in `product`. Raises Problem, for example PRICE_CHANGED."""
        line = {"product_id": product["id"], "quantity": quantity, "price_snapshot": product["price"]}
        return self.call("POST", "/orders", {"items": [line]})

    def decided(self, order_id: str) -> dict[str, Any]:
        """Wait until an order is confirmed or cancelled."""
        deadline = time.monotonic() + DECIDED_WITHIN_SECONDS
        while time.monotonic() < deadline:
            order = self.call("GET", f"/orders/{order_id}")
            if order["status"] != "CREATED":
                return order
            time.sleep(0.2)
        raise TimeoutError(f"order {order_id} is not decided")

    def call(self, method: str, path: str, body: Any = None, query: dict[str, str] | None = None) -> Any:
        """Make a call. Repeat it without a response, after 503 and 504, and with an expired access token."""
        headers = {"Idempotency-Key": str(uuid4())} if method == "POST" else {}
        for last in (attempt == TRIES for attempt in range(1, TRIES + 1)):
            try:
                response = self._http.request(method, path, json=body, params=query, headers=headers)
            except httpx.TransportError:
                if last:
                    raise
                time.sleep(1)
                continue
            if response.is_success:
                return response.json() if response.content else None
            if response.status_code == httpx.codes.UNAUTHORIZED and self._refresh_token:
                self._refresh()
            elif last or response.status_code not in {httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT}:
                raise Problem(response)
            else:
                time.sleep(float(response.headers.get("Retry-After", 1)))
        raise AssertionError("the last try returns or raises")

    def _begin(self, session: dict[str, Any]) -> dict[str, Any]:
        self._refresh_token = session["refresh_token"]
        self._http.headers["Authorization"] = f"Bearer {session['access_token']}"
        user: dict[str, Any] = session["user"]
        return user

    def _refresh(self) -> None:
        token, self._refresh_token = self._refresh_token, ""
        self._begin(self.call("POST", "/users/refresh-token", {"refresh_token": token}))


def main(url: str) -> None:
    """Buy two packs of coffee."""
    shop = Shop(url)
    user = shop.register(f"{uuid4().hex[:12]}@example.com", "a long password of mine")
    print(f"registered {user['email']}")
    product = next(shop.products(sku="COFFEE-TURK-250"))
    order = shop.order(product, 2)
    print(f"ordered 2 x {product['name']} for {order['total_amount']} {order['currency']}")
    order = shop.decided(order["id"])
    print(f"the order is {order['status']}, its payment {order['payment_status']}")
    try:
        shop.order(product, 0)
    except Problem as problem:
        print(problem.code, problem.errors)


if __name__ == "__main__":
    main(sys.argv[1])
