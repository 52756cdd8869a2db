"""Sessions, several tabs, and what the page does while parts of the suite are away."""

from playwright.sync_api import expect
from windows import CUSTOMER, control


def test_two_tabs_have_one_session_and_keep_it(windows):
    first = windows()
    first.sign_in(CUSTOMER)
    second = windows(beside=first)
    second.open("/orders").heading("My orders")
    for _ in range(3):
        first.page.evaluate("location.reload()")
        second.page.evaluate("location.reload()")
        for tab in (first, second):
            expect(tab.page.locator(".account-name")).to_have_text(CUSTOMER)
    second.button("Sign out").click()
    expect(first.link("Sign in").first).to_be_visible()
    first.open("/orders").heading("Sign in to see this page")
    assert first.page.context.cookies() == []


def test_no_script_can_read_a_token(console):
    console.sign_in(CUSTOMER)
    kept = console.page.evaluate("[document.cookie, ...Object.values(localStorage), ...Object.values(sessionStorage)]")
    assert not [text for text in kept if "." in text and len(text) > 100]
    (cookie,) = console.page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/session")


def test_an_expired_token_in_mid_work_is_renewed(console, shop):
    product = shop.product()
    console.sign_in(CUSTOMER)
    refused = []

    def expire(route):
        if refused:
            route.continue_()
            return
        refused.append(route.request.headers["authorization"])
        problem = '{"code": "INVALID_TOKEN", "status": 401, "detail": "The access token has expired."}'
        route.fulfill(status=401, content_type="application/problem+json", body=problem)

    console.page.route("**/orders", expire)
    console.expect_statuses(401)
    console.put_into_cart(product).open("/cart")
    console.button("Place the order").click()
    console.sees("order.confirmed")
    assert len(refused) == 1


def test_a_session_that_was_ended_elsewhere_asks_to_sign_in_again(console):
    console.sign_in(CUSTOMER)
    console.expect_statuses(401)
    console.page.evaluate("fetch('/session', {method: 'DELETE'})")
    console.page.wait_for_timeout(100)
    console.page.reload()
    console.open("/orders").heading("Sign in to see this page")
    console.link("Sign in").last.click()
    console.heading("Sign in")


def test_the_page_survives_an_outage_of_the_gateway(console, shop):
    product = shop.product()
    console.sign_in(CUSTOMER).open("/orders").heading("My orders")
    console.expect_statuses(0, 503, 502)
    with shop.without("gateway"):
        console.open("/products")
        console.sees("The gateway cannot be reached.")
    expect(console.page.locator(".offline")).to_have_count(0)
    console.page.get_by_label("Search products").fill(product["name"])
    expect(console.page.locator(".product")).to_have_count(1)
    # The streams have come back, too.
    console.open("/orders")
    order = shop.order(product)
    expect(console.page.get_by_role("row", name=order["id"][-8:])).to_contain_text("Confirmed")


def test_a_service_that_is_away_is_named_and_the_rest_works(console, shop):
    console.sign_in(CUSTOMER)
    console.expect_statuses(503, 504)
    control("stop notifications")
    try:
        console.open("/preferences")
        expect(console.page.get_by_role("alert")).to_be_visible()
        console.open("/products")
        expect(console.page.locator(".product").first).to_be_visible()
    finally:
        control("start notifications")
    console.open("/preferences")
    expect(console.page.get_by_label("An order was shipped: By mail")).to_be_visible()


def test_an_impatient_customer_places_one_order(console, shop):
    product = shop.product()
    console.sign_in(CUSTOMER).put_into_cart(product).open("/cart")
    sent = []

    def slow(route):
        if route.request.method == "POST":
            sent.append(route.request.headers["idempotency-key"])
            console.page.wait_for_timeout(700)
        route.continue_()

    console.page.route("**/orders", slow)
    button = console.button("Place the order")
    for _ in range(2):
        button.dispatch_event("click")
    expect(button).to_be_disabled()
    console.sees("order.confirmed")
    assert len(sent) == 1
