"""Pricing of an order."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.base import MAX_QUANTITY
from contracts.catalog import ProductView
from contracts.errors import ValidationFailed
from contracts.ids import new_id
from contracts.orders import CreateOrder, PriceChanged, ProductUnavailable
from orders.pricing import MAX_TOTAL, price_order

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def product(price="12.50", sku="PEN", **changes):
    facts = {"id": new_id(), "sku": sku, "name": sku, "description": "", "price": price, "currency": "TRY"}
    facts |= {"is_active": True, "version": 1, "created_at": NOW, "updated_at": NOW}
    return ProductView(**(facts | changes))


PEN, BOOK, GONE = product(), product("99.99", "BOOK"), product(sku="GONE", is_active=False)


def line(item=PEN, quantity=1, **stated):
    return {"product_id": str(item.id), "quantity": quantity, **stated}


def price(*lines, total=None, products=(PEN, BOOK, GONE)):
    request = CreateOrder.parse({"items": lines, "total_amount": total})
    return price_order(request, products)


def refusal(kind, *lines, **more):
    with pytest.raises(kind) as error:
        price(*lines, **more)
    assert str(error.value) == "; ".join(f"{one.field}: {one.message}" for one in error.value.errors)
    return [one.field for one in error.value.errors]


def test_prices_come_from_the_catalog():
    order = price(line(PEN, 2), line(BOOK))
    assert order.total == Decimal("124.99")
    assert [(row.product_sku, row.quantity, row.price_snapshot) for row in order.lines] == [
        ("PEN", 2, Decimal("12.50")),
        ("BOOK", 1, Decimal("99.99")),
    ]


def test_lines_of_one_product_are_merged_into_the_first():
    order = price(line(PEN, 2), line(BOOK), line(PEN, 3))
    assert [(row.product_id, row.quantity) for row in order.lines] == [(PEN.id, 5), (BOOK.id, 1)]


def test_prices_stated_by_the_client_are_only_compared():
    stated = partial(line, PEN, 2, product_sku="PEN", price_snapshot="12.5")
    assert price(stated(), total="25").total == Decimal("25.00")


def test_one_refusal_names_all_unknown_and_inactive_products():
    assert refusal(ProductUnavailable, line(GONE), line(PEN), line(product())) == [
        "items[0].product_id",
        "items[2].product_id",
    ]


def test_a_wrong_sku_is_refused():
    assert refusal(ValidationFailed, line(), line(BOOK, product_sku="PEN")) == ["items[1].product_sku"]
    assert refusal(ValidationFailed, line(product_sku="pen")) == ["items[0].product_sku"]


def test_the_refusal_names_both_a_changed_price_and_a_changed_total():
    assert refusal(PriceChanged, line(), line(BOOK, price_snapshot="99.98"), total="112.48") == [
        "items[1].price_snapshot",
        "total_amount",
    ]
    assert refusal(PriceChanged, line(quantity=3), total="37.51") == ["total_amount"]


def test_errors_are_reported_in_a_fixed_order():
    wrong = line(PEN, product_sku="INK", price_snapshot="0.01")
    assert refusal(ProductUnavailable, wrong, line(GONE)) == ["items[1].product_id"]
    assert refusal(ValidationFailed, wrong) == ["items[0].product_sku"]


def test_the_quantity_limit_applies_to_the_sum_of_lines_of_one_product():
    assert price(line(PEN, MAX_QUANTITY - 1), line(PEN, 1)).lines[0].quantity == MAX_QUANTITY
    assert refusal(ValidationFailed, line(PEN, MAX_QUANTITY), line(PEN, 1)) == ["items"]


def test_a_total_too_large_for_its_column_is_refused():
    dear, cent = product(str(MAX_TOTAL), "DEAR"), product("0.01", "CENT")
    assert price(line(dear), products=[dear]).total == MAX_TOTAL
    assert refusal(ValidationFailed, line(dear), line(cent), products=[dear, cent]) == ["items"]
    assert refusal(ValidationFailed, line(dear, MAX_QUANTITY), products=[dear]) == ["items"]


def test_totals_are_computed_without_floating_point_errors():
    dime, penny = product("0.10", "DIME"), product("0.20", "TWENTY")
    total = price(line(dime), line(penny), products=[dime, penny], total="0.30").total
    assert str(total) == "0.30"


@given(
    st.lists(
        st.tuples(st.decimals(0, "9999.99", places=2), st.integers(1, MAX_QUANTITY)),
        min_size=1,
        max_size=20,
    )
)
def test_the_total_is_the_exact_sum_of_its_lines(rows):
    products = [product(str(amount), f"P{index}") for index, (amount, _) in enumerate(rows)]
    lines = [line(item, quantity) for item, (_, quantity) in zip(products, rows, strict=True)]
    order = price(*lines, products=products)
    cents = sum(int(amount * 100) * quantity for amount, quantity in rows)
    assert isinstance(order.total, Decimal)
    assert order.total == Decimal(cents).scaleb(-2)
    assert order.total == sum(row.price_snapshot * row.quantity for row in order.lines)
    assert f"{order.total:.2f}" == str(order.total)  # always two decimal places
