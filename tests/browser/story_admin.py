"""The day of an administrator: products, stock, orders, payments and users."""

import uuid

import pytest
from playwright.sync_api import expect
from windows import ADMIN, CUSTOMER, PASSWORD, eventually, picture


@pytest.fixture
def admin(console):
    return console.sign_in(ADMIN)


def settled(shop, order):
    """Wait until an order is confirmed and paid; returns it."""

    def is_settled():
        now = shop.call("GET", f"/orders/{order['id']}")
        return now["payment_status"] == "CAPTURED" and now["stock_status"] == "COMMITTED" and now

    return eventually(is_settled)


def dialog(console):
    return console.page.get_by_role("dialog")


def row(console, text):
    return console.page.get_by_role("row").filter(has_text=text)


def short(thing):
    return thing["id"][-8:]


def test_a_product_is_added_stocked_sold_and_shipped(admin, shop):
    sku = f"WEB-{uuid.uuid4().hex[:12]}"
    admin.open("/admin/products/new").heading("Add a product")
    admin.page.get_by_label("SKU").fill("not a sku")
    admin.page.get_by_label("Name").fill("Felt Slippers")
    admin.page.get_by_label("Price").fill("75.50")
    admin.expect_statuses(400, 404)  # 404: it has no stock yet
    admin.button("Add a product").click()
    expect(admin.page.get_by_label("SKU")).to_have_attribute("aria-invalid", "true")
    expect(admin.page.get_by_label("SKU")).to_be_focused()
    admin.page.get_by_label("SKU").fill(sku)
    admin.button("Add a product").click()
    admin.sees("has no stock record yet")
    admin.page.get_by_label("Quantity").fill("4")
    admin.button("Set the quantity on hand").click()
    admin.heading(f"Stock of {sku}")
    expect(row(admin, "First entry")).to_contain_text("+4")

    (product,) = shop.call("GET", f"/products?sku={sku}")["items"]
    orders = [settled(shop, shop.order(product)) for _ in range(2)]
    admin.open("/admin/orders?status=CONFIRMED").heading("All orders")
    for order in orders:
        row(admin, short(order)).get_by_role("checkbox").check()
    admin.sees("2 selected")
    admin.button("Ship", exact=True).click()
    dialog(admin).get_by_label("Carrier").fill("PTT Kargo")
    dialog(admin).get_by_role("button", name="Ship 2 orders").click()
    admin.sees("2 done")
    assert {shop.call("GET", f"/orders/{order['id']}")["carrier"] for order in orders} == {"PTT Kargo"}

    admin.link(short(orders[0])).first.click()
    admin.heading(f"Order {short(orders[0])}")
    expect(admin.page.locator(".facts").first).to_contain_text("PTT Kargo")
    admin.button("Mark as delivered").click()
    dialog(admin).get_by_role("button", name="Mark 1 order as delivered").click()
    expect(admin.page.locator(".timeline")).to_contain_text("order.delivered")
    expect(admin.page.locator(".facts").first).to_contain_text("Delivered")
    picture(admin, "admin-order")


def test_each_of_several_orders_has_a_result_of_its_own(admin, shop):
    product = shop.product()
    good, gone = (settled(shop, shop.order(product)) for _ in range(2))
    admin.open("/admin/orders").heading("All orders")
    for order in (good, gone):
        row(admin, short(order)).get_by_role("checkbox").check()
    shop.call("POST", f"/orders/{gone['id']}/cancel", {})
    admin.expect_statuses(409)
    admin.button("Ship", exact=True).click()
    dialog(admin).get_by_role("button", name="Ship 2 orders").click()
    admin.sees("1 done").sees("1 failed")
    results = admin.page.locator(".results li")
    expect(results.filter(has_text=short(gone))).to_contain_text("CANCELLED")
    expect(results.filter(has_text=short(good))).to_contain_text("Shipped")


def test_an_order_is_cancelled_with_a_reason_and_refunded(admin, shop):
    order = settled(shop, shop.order(shop.product(price="40.00")))
    admin.open(f"/admin/orders/{order['id']}")
    admin.button("Cancel", exact=True).click()
    dialog(admin).get_by_label("Reason").fill("the box was crushed")
    dialog(admin).get_by_role("button", name="Cancel 1 order").click()
    for text in ("the box was crushed", "inventory.stock_released", "payment.refunded"):
        expect(admin.page.locator(".timeline")).to_contain_text(text)
    expect(admin.page.locator(".facts").first).to_contain_text("Cancelled: by an administrator")


def test_a_part_of_a_payment_is_refunded(admin, shop):
    order = settled(shop, shop.order(shop.product(price="40.00")))
    admin.open(f"/admin/payments?order={order['id']}").heading("Payments")
    row(admin, short(order)).get_by_role("link").first.click()
    admin.page.get_by_label("Amount").fill("15.00")
    admin.page.get_by_label("Reason").fill("a scratch")
    admin.button("Refund").click()
    expect(dialog(admin)).to_contain_text("₺15.00")
    dialog(admin).get_by_role("button", name="Refund").click()
    admin.sees("Partly refunded")
    expect(row(admin, "a scratch")).to_contain_text("Given back")
    expect(row(admin, "Authorise")).to_contain_text("Approved")
    picture(admin, "payment")


def test_stock_is_adjusted_with_a_reason_and_watched(admin, shop):
    product = shop.product(stock=10)
    admin.open("/admin/stock").heading("Stock")
    admin.page.get_by_label("Find a product").fill(product["name"])
    admin.link(product["sku"]).click()
    admin.page.get_by_label("Change").fill("-4")
    admin.page.get_by_label("Reason").fill("broken in transport")
    admin.button("Adjust").click()
    expect(row(admin, "broken in transport")).to_contain_text("-4")
    admin.page.get_by_label("Low below").fill("8")
    admin.button("Set the threshold").click()
    expect(admin.page.locator(".facts").first).to_contain_text("Low")
    expect(admin.page.locator(".facts .badge").first).to_have_text("Low")


def test_a_change_by_somebody_else_is_not_overwritten(admin, shop):
    product = shop.product(price="10.00")
    admin.open(f"/admin/products/{product['id']}").heading("Edit the product")
    expect(admin.page.get_by_label("Price")).to_have_value("10.00")
    shop.call("PATCH", f"/products/{product['id']}", {"price": "12.00"})
    admin.page.get_by_label("Price").fill("9.00")
    admin.expect_statuses(412)
    admin.button("Save").click()
    expect(admin.page.get_by_role("alert")).to_be_visible()
    assert shop.call("GET", f"/products/{product['id']}")["price"] == "12.00"


def test_a_file_is_imported_and_its_wrong_rows_are_shown(admin):
    sku = f"WEB-{uuid.uuid4().hex[:12]}"
    rows = f"sku,name,price\n{sku},Copper Pot,349.00\nBAD ONE,,1.00\n"
    admin.open("/admin/products/import").heading("Import products")
    admin.page.get_by_label("File").set_input_files(
        {"name": "products.csv", "mimeType": "text/csv", "buffer": rows.encode()}
    )
    admin.page.get_by_label("If a row is wrong").select_option("skip_bad")
    admin.button("Import the file").click()
    admin.sees("Done", exact=True)
    expect(row(admin, "sku").filter(has_text="3")).to_be_visible()
    admin.open("/admin/products").heading("Manage products")
    admin.page.get_by_label("Search").fill(sku)
    expect(row(admin, sku)).to_contain_text("₺349.00")
    row(admin, sku).get_by_role("button", name="Stop selling").click()
    dialog(admin).get_by_role("button", name="Stop selling").click()
    expect(row(admin, sku)).to_contain_text("Not sold")
    with admin.page.expect_download() as download:
        admin.button("Export as CSV").click()
    assert f"{sku},Copper Pot,349.00" in download.value.path().read_text()


def test_orders_are_saved_as_csv(admin, shop):
    order = shop.order(shop.product())
    admin.open("/admin/orders").heading("All orders")
    with admin.page.expect_download() as download:
        admin.button("Export as CSV").click()
    header, *lines = download.value.path().read_text("utf-8-sig").splitlines()
    assert header.startswith("id,created_at,user_id,status")
    assert any(line.startswith(order["id"]) for line in lines)


def test_an_account_is_switched_off_and_on_and_gets_a_role(admin, shop):
    email = f"{uuid.uuid4().hex[:12]}@example.com"
    shop.call("POST", "/users/register", {"email": email, "password": PASSWORD})
    admin.open("/admin/users").heading("Users")
    row(admin, email).get_by_role("button", name="Switch off").click()
    dialog(admin).get_by_role("button", name="Switch off").click()
    expect(row(admin, email)).to_contain_text("Switched off")
    row(admin, email).get_by_role("button", name="Switch on").click()
    expect(row(admin, email)).to_contain_text("Active")
    row(admin, email).get_by_role("button", name="Make administrator").click()
    dialog(admin).get_by_role("button", name="Make administrator").click()
    expect(row(admin, email)).to_contain_text("Administrator")
    expect(row(admin, ADMIN).get_by_role("button", name="Switch off")).to_be_disabled()


def test_customers_see_nothing_of_it(console):
    console.sign_in(CUSTOMER)
    assert console.link("All orders").count() == 0
    console.open("/admin/orders")
    console.sees("Sign in with an account that has the admin role.")
