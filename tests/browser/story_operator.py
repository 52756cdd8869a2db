"""The failure desk: what is stuck and why, dead letters, the health board; and all these pages for everybody."""

import json
import re
import uuid

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from story_access import LOOKS
from windows import ADMIN, PASSWORD, picture

QUEUE = "inventory.on_order_confirmed"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PAGES = (
    "/admin/orders",
    "/admin/products",
    "/admin/products/new",
    "/admin/products/import",
    "/admin/stock",
    "/admin/payments",
    "/admin/users",
    "/admin/health",
    "/admin/sagas",
    "/admin/dead-letters",
    "/admin/dead-letters?view=all",
    "/admin/consistency",
)


@pytest.fixture
def operator(console):
    return console.sign_in(ADMIN)


@pytest.fixture
def order(shop):
    return shop.order(shop.product())


@pytest.fixture
def fail(shop, order):
    """A function that makes dead letters about an order: events that lack a field."""

    def publish(field="user_id"):
        body = {"order_id": order["id"], "user_id": order["user_id"], "total_amount": "25.00", "currency": "TRY"}
        del body[field]
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        shop.publish(
            QUEUE,
            json.dumps(body),
            type="order.confirmed",
            message_id=str(uuid.uuid4()),
            correlation_id=order["id"],
            application_headers=headers,
        )

    yield publish
    letters = shop.call("GET", f"/admin/dead-letters?correlation_id={order['id']}")["items"]
    if letters:
        shop.call("POST", "/admin/dead-letters/discard", {"ids": [letter["id"] for letter in letters]})


def confirm(console, name):
    console.page.get_by_role("dialog").last.get_by_role("button", name=name).click()


def rows(console, text):
    return console.page.locator("tbody tr").filter(has_text=text)


def service(console, name):
    """The row of a service on the health board."""
    return console.page.locator("tbody tr", has=console.page.locator("strong", has_text=name))


def test_a_dead_letter_is_found_by_its_order_opened_replayed_and_discarded(operator, order, fail):
    fail()
    operator.open(f"/admin/orders/{order['id']}")
    operator.sees("1 message about this order could not be handled")
    operator.link("To its dead letters").click()
    letter = rows(operator, order["id"][-8:])
    expect(letter).to_contain_text("user_id: is required")
    letter.get_by_role("button").click()
    dialog = operator.page.get_by_role("dialog")
    for text in (QUEUE, TRACE, "order.confirmed"):
        expect(dialog).to_contain_text(text)
    expect(dialog).not_to_contain_text("total_amount")
    picture(operator, "dead-letter")
    dialog.get_by_role("button", name="Show the payload").click()
    expect(dialog).to_contain_text('"total_amount": "25.00"')

    dialog.get_by_role("button", name="Replay").click()
    confirm(operator, "Replay 1 message")
    operator.sees("1 done").sees("Put back into its queue")
    expect(letter).to_contain_text("Failed again after a replay")
    letter.get_by_role("checkbox").check()
    operator.button("Discard", exact=True).click()
    confirm(operator, "Discard 1 message")
    operator.sees("No dead letters here")
    operator.link("Replayed", exact=True).click()
    expect(letter.first).to_contain_text("Replayed")


def test_a_group_is_replayed_and_discarded_with_a_result_for_each(operator, fail):
    for _ in range(3):
        fail("currency")
    operator.open("/admin/dead-letters").heading("Dead letters")
    group = rows(operator, "currency: is required")
    expect(group.locator("td").first).to_have_text("3")
    group.get_by_role("button", name="Replay").click()
    confirm(operator, "Replay 3 messages")
    operator.sees("3 done")
    expect(operator.page.locator(".results li")).to_have_count(3)
    expect(group.locator(".badge")).to_have_text("3")  # all of them failed again
    expect(group.locator("td").first).to_have_text("3")
    picture(operator, "dead-letters")
    group.get_by_role("button", name="Discard").click()
    confirm(operator, "Discard 3 messages")
    expect(group).to_have_count(0)


def test_an_order_that_waits_for_a_service_is_shown_with_the_service(operator, shop):
    product = shop.product()
    operator.open("/admin/health").sees("All parts work")
    operator.expect_statuses(503, 504)
    with shop.without("payments"):
        order = shop.order(product)
        expect(service(operator, "payments")).to_contain_text("No response")
        operator.open("/admin/sagas?view=waiting")
        waiting = rows(operator, order["id"][-8:])
        expect(waiting).to_contain_text("payments has not replied to order.created")
        picture(operator, "stuck")
    expect(waiting).to_have_count(0)
    operator.open("/admin/health").sees("All parts work")


def test_the_board_counts_what_passes(operator, shop):
    product = shop.product()
    operator.open("/admin/health").sees("Live", exact=True)
    for _ in range(3):
        shop.order(product)
    placed, confirmed = (operator.page.locator(".numbers div", has_text=text) for text in ("Placed", "Confirmed"))
    expect(placed).to_contain_text("3")
    expect(confirmed).to_contain_text(re.compile("[3-9]"))  # an order of an earlier story may be decided late
    expect(operator.page.locator(".plot canvas")).to_have_count(3)
    expect(operator.page.locator(".plot-legend").nth(1)).to_contain_text("s")
    expect(service(operator, "gateway")).to_contain_text("closed")
    picture(operator, "health")


def test_the_consistency_of_the_shop_is_checked(operator):
    operator.open("/admin/consistency").heading("Consistency")
    expect(rows(operator, "cancelled_holds_no_money")).to_contain_text("0")
    operator.button("Check now").click()
    operator.sees("Checked")
    checks = operator.page.locator("tbody tr td:first-child")
    for text in checks.all_inner_texts():
        meaning, name = text.split("\n")
        assert meaning != name, "it has no text"


@pytest.mark.parametrize("theme", LOOKS)
def test_axe_finds_nothing_and_nothing_overflows(windows, shop, order, fail, theme):
    size, locale = LOOKS[theme]
    console = windows(color_scheme=theme, viewport=size, locale=locale)
    fail()
    payments = shop.call("GET", f"/payments?order_id={order['id']}")["items"]
    console.open("/sign-in")
    console.page.locator("input[name=email]").fill(ADMIN)
    console.page.locator("input[name=password]").fill(PASSWORD)
    console.page.locator("form button[type=submit]").click()
    expect(console.page.locator(".account-name")).to_have_text(ADMIN)
    product = order["items"][0]["product_id"]
    things = [f"/admin/orders/{order['id']}", f"/admin/stock/{product}", f"/admin/products/{product}"]
    things += [f"/admin/payments/{payment['id']}" for payment in payments]
    found = []
    for path in (*PAGES, *things):
        console.open(path)
        expect(console.page.locator("h1")).to_be_visible()
        expect(console.page.locator(".skeleton")).to_have_count(0)
        picture(console, f"{_name(path)}-{theme}-{size['width']}")
        found += _violations(console, path)
        width = console.page.evaluate("document.documentElement.scrollWidth")
        if width > size["width"]:
            found.append(f"{path}: {width} px wide")
    console.open("/admin/dead-letters?view=all")
    console.page.locator(".link-button").first.click()
    expect(console.page.get_by_role("dialog")).to_be_visible()
    found += _violations(console, "the dialog of a dead letter")
    assert found == []


def _name(path):
    """The name of a picture: without the id of the thing that is shown."""
    parts = path.partition("?")[0].strip("/").split("/")
    return "-".join("one" if len(part) == len(str(uuid.UUID(int=0))) else part for part in parts)


def _violations(console, place):
    return [
        f"{place}: {one['id']}, {one['help']}: {[node['target'] for node in one['nodes']][:3]}"
        for one in Axe().run(console.page).response["violations"]
    ]
