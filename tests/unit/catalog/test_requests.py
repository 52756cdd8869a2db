from decimal import Decimal

import pytest

from contracts.catalog import CreateProduct, ProductFilter, ProductLookup, UpdateProduct
from contracts.errors import ValidationFailed

LAMP = {"sku": "LAMP-1", "name": "Lamp", "price": "149.90"}


def test_a_product_is_active_and_has_no_description_by_default():
    product = CreateProduct.parse(LAMP)
    assert (product.price, product.description, product.is_active) == (Decimal("149.90"), "", True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", 149.9),
        ("price", 149),
        ("price", "-1"),
        ("price", "1.999"),
        ("price", "1e3"),
        ("price", "12345678901"),
        ("sku", ""),
        ("sku", "-lamp"),
        ("sku", "a b"),
        ("sku", "x" * 65),
        ("name", ""),
        ("name", "a\x00"),
        ("description", None),
        ("is_active", "yes"),
        ("colour", "red"),
    ],
)
def test_refuses_and_names_the_field(field, value):
    with pytest.raises(ValidationFailed) as refused:
        CreateProduct.parse(LAMP | {field: value})
    assert [error.field for error in refused.value.errors] == [field]


def test_only_stated_fields_change():
    assert UpdateProduct.parse({"price": "1.00", "is_active": False}).changes == {
        "price": Decimal("1.00"),
        "is_active": False,
    }


@pytest.mark.parametrize("field", ["sku", "name", "price", "description", "is_active"])
def test_null_means_no_change(field):
    with pytest.raises(ValidationFailed, match=field):
        UpdateProduct.parse({field: None})


@pytest.mark.parametrize("wanted", [{"limit": 0}, {"limit": 101}, {"sort": "colour"}, {"min_price": 5}, {"search": ""}])
def test_refuses_filters(wanted):
    with pytest.raises(ValidationFailed, match=next(iter(wanted))):
        ProductFilter.parse(wanted)


@pytest.mark.parametrize("product_ids", [[], ["x"], ["01900000-0000-7000-8000-000000000001"] * 101, None])
def test_refuses_lookups(product_ids):
    with pytest.raises(ValidationFailed, match="product_ids"):
        ProductLookup.parse({"product_ids": product_ids})
