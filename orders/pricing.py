"""The price of an order. Prices come from the catalog; prices that the client states are only compared with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from contracts.base import MAX_QUANTITY
from contracts.errors import FieldError, ValidationFailed
from contracts.orders import CreateOrder, NewOrderItem, OrderLine, PriceChanged, ProductUnavailable

MAX_TOTAL = Decimal("9999999999.99")


class Product(Protocol):
    """What pricing needs to know about a product: a ProductView of catalog, or a replica of it."""

    @property
    def id(self) -> UUID: ...
    @property
    def sku(self) -> str: ...
    @property
    def price(self) -> Decimal: ...
    @property
    def is_active(self) -> bool: ...
    @property
    def version(self) -> int: ...


@dataclass(frozen=True, slots=True)
class PricedOrder:
    """The lines of an order, one for each product, and their total."""

    lines: tuple[OrderLine, ...]
    total: Decimal


def price_order(request: CreateOrder, products: Sequence[Product]) -> PricedOrder:
    """Return the order at the catalog's prices.

    Raises ProductUnavailable, ValidationFailed (a wrong sku, or over MAX_QUANTITY of one product) and PriceChanged;
    each names the lines.
    """
    catalog = {product.id: product for product in products}
    _refuse(ProductUnavailable, [_unavailable(index, item, catalog) for index, item in enumerate(request.items)])
    _refuse(ValidationFailed, [_wrong_sku(index, item, catalog) for index, item in enumerate(request.items)])
    lines = _merge(request.items, catalog)
    total = sum((line.price_snapshot * line.quantity for line in lines), Decimal("0.00"))
    if total > MAX_TOTAL:
        raise ValidationFailed.field("items", f"the order must not cost more than {MAX_TOTAL}")
    changed = [_changed_price(index, item, catalog) for index, item in enumerate(request.items)]
    if request.total_amount is not None and request.total_amount != total:
        changed.append(FieldError("total_amount", f"the total is {total:.2f} now"))
    _refuse(PriceChanged, changed)
    return PricedOrder(lines, total)


def _refuse(
    kind: type[ProductUnavailable | ValidationFailed | PriceChanged], findings: Sequence[FieldError | None]
) -> None:
    errors = [finding for finding in findings if finding is not None]
    if errors:
        raise kind("; ".join(f"{error.field}: {error.message}" for error in errors), errors)


def _unavailable(index: int, item: NewOrderItem, catalog: dict[UUID, Product]) -> FieldError | None:
    product = catalog.get(item.product_id)
    if product is not None and product.is_active:
        return None
    return FieldError(f"items[{index}].product_id", f"product {item.product_id} is unknown or no longer sold")


def _wrong_sku(index: int, item: NewOrderItem, catalog: dict[UUID, Product]) -> FieldError | None:
    sku = catalog[item.product_id].sku
    if item.product_sku is None or item.product_sku == sku:
        return None
    return FieldError(f"items[{index}].product_sku", f"this product's sku is {sku}")


def _changed_price(index: int, item: NewOrderItem, catalog: dict[UUID, Product]) -> FieldError | None:
    price = catalog[item.product_id].price
    if item.price_snapshot is None or item.price_snapshot == price:
        return None
    return FieldError(f"items[{index}].price_snapshot", f"the price is {price:.2f} now")


def _merge(items: Sequence[NewOrderItem], catalog: dict[UUID, Product]) -> tuple[OrderLine, ...]:
    """Merge lines of the same product, so that each product is reserved once."""
    quantities: dict[UUID, int] = {}
    for item in items:
        quantities[item.product_id] = quantities.get(item.product_id, 0) + item.quantity
    for product_id, quantity in quantities.items():
        if quantity > MAX_QUANTITY:
            raise ValidationFailed.field("items", f"at most {MAX_QUANTITY} of product {product_id}, not {quantity}")
    return tuple(
        OrderLine(
            product_id=product_id,
            product_sku=catalog[product_id].sku,
            quantity=quantity,
            price_snapshot=catalog[product_id].price,
        )
        for product_id, quantity in quantities.items()
    )
