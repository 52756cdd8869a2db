"""Somebody who has read nothing opens the page after `make run`."""

from playwright.sync_api import expect
from windows import ADMIN, CUSTOMER, picture


def chosen(console):
    """The panel with the chosen order of the live page."""
    return console.page.locator(".chosen-order")


def choose(console, product):
    console.page.get_by_label("With this product").select_option(label=product["name"])


def shelf(console, product):
    return console.page.locator(".shelf li", has_text=product["name"])


def test_a_product_is_sold_out_restocked_ordered_again_and_shipped(console, shop):
    product = shop.product(stock=5)
    console.open("/").heading("Live demo")
    console.button("Sign in as the administrator").click()
    console.sees("Live", exact=True)
    expect(shelf(console, product)).to_contain_text("5 available")
    choose(console, product)
    console.button("Sell it out").click()
    lost = console.page.locator(".order-list li", has_text="Cancelled: out of stock").first
    lost.get_by_role("button").click()
    for text in ("inventory.stock_failed", "order.cancelled", "Voided"):
        expect(chosen(console)).to_contain_text(text)
    expect(console.page.locator(".order-list")).to_contain_text("Confirmed")
    expect(shelf(console, product)).to_contain_text("0 available")
    picture(console, "sold-out")

    shelf(console, product).get_by_role("button", name="+10 stock").click()
    expect(shelf(console, product)).to_contain_text("10 available")
    shelf(console, product).get_by_role("button", name="Add to the cart").click()
    console.button("Place the order").click()
    for text in ("Confirmed", "Committed", "Captured"):
        expect(chosen(console)).to_contain_text(text)
    expect(shelf(console, product)).to_contain_text("9 available")
    chosen(console).get_by_role("button", name="Ship").click()
    expect(chosen(console)).to_contain_text("Shipped")
    chosen(console).get_by_role("button", name="Deliver").click()
    expect(chosen(console)).to_contain_text("order.delivered")
    assert shop.call("GET", f"/inventory/{product['id']}")["on_hand"] == 9


def test_an_order_over_10000_and_one_cancelled_in_flight_are_compensated(console, shop):
    product = shop.product(stock=1000)
    console.sign_in(ADMIN).open("/live")
    console.sees("Live", exact=True)
    choose(console, product)
    console.button("An order over 10,000").click()
    for text in ("Cancelled: payment failed", "payment.failed", "Released"):
        expect(chosen(console)).to_contain_text(text)
    console.button("Cancel in flight").click()
    for text in ("Cancelled: by the customer", "Released", "Voided"):
        expect(chosen(console)).to_contain_text(text)
    expect(shelf(console, product)).to_contain_text("1,000 available")


def test_a_customer_sees_the_own_orders_live_and_nothing_of_others(console, shop):
    product = shop.product(stock=100)
    console.sign_in(CUSTOMER).open("/live")
    choose(console, product)
    assert console.button("Sell it out").count() == 0
    assert console.page.locator(".ticker").count() == 0
    assert console.page.get_by_text("available").count() == 0
    console.button("An order that works").click()
    expect(chosen(console)).to_contain_text("payment.captured")
    console.button("The payment is declined").click()
    expect(chosen(console)).to_contain_text("Cancelled: payment failed")
    expect(console.page.locator(".order-list li")).to_have_count(2)
