"""A customer's way: an account, products, the cart, an order, and what the shop tells about it."""

import uuid

from playwright.sync_api import expect
from windows import CUSTOMER, PASSWORD, picture


def order_from_cart(console, product):
    """Find a product, put it into the cart twice, and place the order."""
    console.put_into_cart(product)
    console.button(f"One more {product['name']}").click()
    console.link("Cart: 2 units").click()
    console.button("Place the order").click()
    console.sees("order.confirmed")


def test_from_the_account_to_the_cancelled_order(console, shop):
    product = shop.product(price="12.50")
    email = f"{uuid.uuid4().hex[:12]}@example.com"
    console.open("/sign-up").heading("Create an account")
    console.page.get_by_label("E-mail address").fill(email)
    console.page.get_by_label("Password").fill("password")
    console.expect_statuses(422)
    console.button("Create the account").click()
    expect(console.page.get_by_role("alert")).to_be_visible()
    console.page.get_by_label("Password").fill(PASSWORD)
    console.button("Create the account").click()
    expect(console.page.locator(".account-name")).to_have_text(email)

    order_from_cart(console, product)
    expect(console.page.locator(".facts")).to_contain_text("₺25.00")
    expect(console.page.locator(".facts")).to_contain_text("Captured")
    picture(console, "order")
    console.button("Cancel the order").click()
    console.page.get_by_role("dialog").get_by_role("button", name="Cancel the order").click()
    for text in ("Cancelled: by the customer", "Returned", "Refunded"):
        expect(console.page.locator(".facts")).to_contain_text(text)
    expect(console.button("Cancel the order")).to_be_disabled()

    console.link("My orders").click()
    expect(console.page.get_by_role("row", name="Cancelled")).to_be_visible()
    expect(console.link("Notifications, 5 unread")).to_be_visible()
    console.link("Notifications", exact=True).click()
    console.sees("You get your money back")
    console.button("Mark all as read").click()
    expect(console.link("Notifications, 0 unread")).to_be_visible()


def test_my_orders_follow_what_happens_elsewhere(console, shop):
    product = shop.product()
    console.sign_in(CUSTOMER).open("/orders").heading("My orders")
    order = shop.order(product)
    row = console.page.get_by_role("row", name=order["id"][-8:])
    expect(row).to_contain_text("Confirmed")
    shop.call("POST", f"/orders/{order['id']}/ship", {})
    expect(row).to_contain_text("Shipped")


def test_a_price_that_has_changed_is_shown_before_it_is_paid(console, shop):
    product = shop.product(price="10.00")
    console.sign_in(CUSTOMER).put_into_cart(product)
    shop.call("PATCH", f"/products/{product['id']}", {"price": "11.00"})
    console.open("/cart")
    console.expect_statuses(409)
    console.button("Place the order").click()
    expect(console.page.get_by_role("alert")).to_be_visible()
    console.sees("₺11.00")
    console.button("Place the order").click()
    console.sees("order.confirmed")


def test_preferences_are_kept(console):
    console.sign_in(CUSTOMER).open("/preferences")
    box = console.page.get_by_label("An order was shipped: By mail")
    before = box.is_checked()
    box.click()
    console.button("Save").click()
    console.sees("Saved")
    console.page.reload()
    expect(box).to_be_checked(checked=not before)
    box.click()
    console.button("Save").click()
    console.sees("Saved")


def test_a_webhook_is_added_tested_and_deleted(console):
    console.sign_in(CUSTOMER).open("/webhooks")
    console.button("Add an endpoint").click()
    address = console.page.get_by_label("Address")
    address.fill("http://127.0.0.1:9/hook")
    console.expect_statuses(400)
    console.button("Add it").click()
    expect(address).to_have_attribute("aria-invalid", "true")
    expect(console.page.locator(".field-error")).to_contain_text("port")
    address.fill("http://127.0.0.1:1999/hook")
    console.button("Add it").click()
    expect(console.page.locator(".secret")).to_contain_text("whsec_")
    console.button("I have stored it").click()
    console.link("http://127.0.0.1:1999/hook").click()
    console.button("Send a test").click()
    expect(console.page.get_by_role("row", name="webhook.test")).to_be_visible()
    console.button("Delete the endpoint").click()
    console.page.get_by_role("dialog").get_by_role("button", name="Delete the endpoint").click()
    console.sees("No endpoint yet")
