"""The life of an account over HTTP: registered, verified, its password changed and reset, exported, and deleted.

The tests of the users service and of the gateway have the details. Here the real processes agree about the end.
"""

import os

import pytest

from qa.support.client import Client
from tests.support import Bus, eventually

PASSWORDS = [f"a long password of hers, number {number}" for number in range(3)]


@pytest.fixture
def bus(shop):
    """What the mails to the user are made of."""
    bus = Bus()
    yield bus
    bus.close()


def mailed(bus, event, user):
    """The token of the latest mail to this user."""
    return bus.wait_for(f"user.{event}_requested", user["id"])[-1].token


def test_the_life_of_an_account(shop, bus):
    email, client = f"{os.urandom(6).hex()}@example.com", Client(shop.url)

    def log_in(password):
        session = client.must("POST", "/users/login", {"email": email, "password": password})
        client.token = session["access_token"]
        return session["user"]

    session = client.must("POST", "/users/register", {"email": email, "password": PASSWORDS[0], "language": "tr"})
    client.token, user = session["access_token"], session["user"]
    client.must("POST", "/users/verify-email", {"token": mailed(bus, "email_verification", user)})
    assert client.must("GET", "/users/me")["email_verified"] is True

    client.must("PUT", "/users/me/password", {"current_password": PASSWORDS[0], "new_password": PASSWORDS[1]})
    client.must("POST", "/users/password-reset", {"email": email})
    reset = {"token": mailed(bus, "password_reset", user), "new_password": PASSWORDS[2]}
    client.must("POST", "/users/password-reset/confirm", reset)
    eventually(lambda: client.request("GET", "/users/me")[0] == 401)
    assert [client.request("POST", "/users/login", {"email": email, "password": one})[0] for one in PASSWORDS[:2]] == [
        401,
        401,
    ]
    log_in(PASSWORDS[2])

    pen = shop.product(stock=10)
    open_order, delivered = (shop.order((pen, 2), client=client) for _ in range(2))
    for order in (open_order, delivered):
        shop.reaches(order, "CONFIRMED")
        shop.has_payment(order, "CAPTURED")
    for step in ("ship", "deliver"):
        shop.admin.must("POST", f"/orders/{delivered['id']}/{step}")
    eventually(lambda: len(client.must("GET", "/notifications")["items"]) >= 6)
    export = client.must("GET", "/users/me/export")
    assert export["user"] == client.must("GET", "/users/me")
    assert len(export["sessions"]) == 2
    assert {one["id"] for one in export["orders"]} == {open_order["id"], delivered["id"]}
    assert {one["order_id"] for one in export["payments"]} == {open_order["id"], delivered["id"]}
    assert export["notifications"]
    assert export["next_cursor"] is None

    assert client.request("DELETE", "/users/me", {"password": PASSWORDS[2]})[0] == 204
    eventually(lambda: client.request("GET", "/orders")[0] in {401, 403})
    assert shop.reaches(open_order, "CANCELLED")["cancel_reason"] == "USER"
    shop.has_payment(open_order, "REFUNDED")
    shop.has_stock(pen, 8)
    assert shop.get(f"/orders/{delivered['id']}")["status"] == "DELIVERED"
    assert shop.payment(delivered)["amount"] == "20.00"
    assert shop.admin.request("GET", f"/users/{user['id']}")[0] == 404
    again = Client(shop.url).must("POST", "/users/register", {"email": email, "password": PASSWORDS[0]})
    assert again["user"]["id"] != user["id"]
    shop.assert_sound()
