"""The page for everybody: screen readers, keyboard, phones, both themes, both languages."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from windows import ADMIN, CUSTOMER, DESKTOP, PHONE, picture

PAGES = (
    "/live",
    "/products",
    "/cart",
    "/orders",
    "/notifications",
    "/preferences",
    "/webhooks",
    "/sign-up",
    "/missing",
)
LOOKS = {"light": (DESKTOP, "en-GB"), "dark": (PHONE, "tr-TR")}


@pytest.mark.parametrize("theme", LOOKS)
def test_axe_finds_nothing_and_nothing_overflows(windows, shop, theme):
    size, locale = LOOKS[theme]
    console = windows(color_scheme=theme, viewport=size, locale=locale)
    order = shop.order(shop.product())
    console.open("/sign-in")
    console.page.locator("input[name=email]").fill(CUSTOMER)
    console.page.locator("input[name=password]").fill("Demo-pass-2026!")
    console.page.locator("form button[type=submit]").click()
    expect(console.page.locator(".account-name")).to_have_text(CUSTOMER)
    found = []
    for path in (*PAGES, f"/orders/{order['id']}"):
        console.open(path)
        expect(console.page.locator("h1")).to_be_visible()
        expect(console.page.locator(".skeleton")).to_have_count(0)
        picture(console, f"{path.strip('/').split('/')[0]}-{theme}-{size['width']}")
        found += [
            f"{path}: {one['id']}, {one['help']}: {[node['target'] for node in one['nodes']][:3]}"
            for one in Axe().run(console.page).response["violations"]
        ]
        width = console.page.evaluate("document.documentElement.scrollWidth")
        if width > size["width"]:
            found.append(f"{path}: {width} px wide")
    assert found == []


def test_axe_finds_nothing_in_dialogs(console):
    console.sign_in(ADMIN).open("/webhooks")
    console.button("Add an endpoint").click()
    expect(console.page.get_by_role("dialog")).to_be_visible()
    assert Axe().run(console.page).response["violations"] == []
    console.page.keyboard.press("Escape")
    expect(console.page.get_by_role("dialog")).to_have_count(0)
    console.page.keyboard.press("Control+k")
    expect(console.page.get_by_role("combobox", name="Type a command")).to_be_focused()
    assert Axe().run(console.page).response["violations"] == []


def test_the_keyboard_is_enough(console):
    console.sign_in(CUSTOMER)
    console.page.keyboard.press("Control+k")
    expect(console.page.get_by_role("dialog").get_by_role("combobox")).to_be_focused()
    console.page.keyboard.type("my ord")
    console.page.keyboard.press("Enter")
    console.heading("My orders")
    expect(console.page.get_by_role("heading", level=1)).to_be_focused()
    console.page.keyboard.press("Control+k")
    expect(console.page.get_by_role("dialog").get_by_role("combobox")).to_be_focused()
    console.page.keyboard.press("Escape")
    expect(console.page.get_by_role("dialog")).to_have_count(0)
    console.page.reload()
    console.page.keyboard.press("Tab")
    expect(console.link("Skip to the content")).to_be_focused()
    console.page.keyboard.press("Enter")
    expect(console.page.get_by_role("heading", level=1)).to_be_focused()


def test_language_and_theme_are_chosen_and_kept(console):
    console.open("/products")
    console.page.get_by_label("Language").select_option("tr")
    console.heading("Ürünler")
    assert console.page.evaluate("document.documentElement.lang") == "tr"
    console.page.get_by_label("Görünüm").select_option("dark")
    dark = console.page.evaluate("getComputedStyle(document.body).backgroundColor")
    console.page.reload()
    console.heading("Ürünler")
    assert console.page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    console.page.get_by_label("Görünüm").select_option("light")
    assert console.page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_every_text_of_data_is_escaped(console, shop):
    text = "<img src=x onerror=\"document.title='broken'\">"
    made = shop.product()
    shop.call("PATCH", f"/products/{made['id']}", {"name": text, "description": f"{text} & <b>bold</b>"})
    console.open("/products")
    console.page.get_by_label("Search products").fill(made["sku"])
    expect(console.page.locator(".product")).to_have_count(1)
    expect(console.page.locator(".product h2")).to_have_text(text)
    assert console.page.locator(".product img, .product b").count() == 0
    assert "broken" not in console.page.title()
