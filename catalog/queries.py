"""The queries of the catalog service."""

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from catalog import search
from catalog.models import Product
from contracts.base import Actor, Json, Page, page_of
from contracts.catalog import EXPORT_PAGE, ProductFilter, ProductLookup, ProductNotFound, ProductsView, ProductView
from extensions.storage.pagination import fetch_page

DEFAULT_SORT = "-created_at"
_SORT_KEYS: dict[str, InstrumentedAttribute[Any]] = {
    "created_at": Product.created_at,
    "price": Product.price,
    "name": Product.name,
    "sku": Product.sku,
}


def get_product(session: Session, product_id: UUID) -> ProductView:
    """Return the product, active or not; raises ProductNotFound."""
    product = session.get(Product, product_id)
    if product is None:
        raise ProductNotFound
    return ProductView.model_validate(product)


def require_visible(product: Json[ProductView], actor: Actor) -> Json[ProductView]:
    """Return `product`; raises ProductNotFound if it is inactive and the actor is no administrator."""
    if not product["is_active"] and not actor.is_admin:
        raise ProductNotFound
    return product


def get_products(session: Session, lookup: ProductLookup) -> ProductsView:
    """Return the products that exist, active or not, in any order."""
    products = session.scalars(select(Product).where(Product.id.in_(lookup.product_ids)))
    return ProductsView(items=tuple(ProductView.model_validate(product) for product in products))


def export_products(session: Session, after: UUID | None, actor: Actor) -> ProductsView:
    """Return the products that follow the id `after`, in the order of their ids; EXPORT_PAGE at most."""
    actor.require_admin()
    statement = select(Product).order_by(Product.id).limit(EXPORT_PAGE)
    if after is not None:
        statement = statement.where(Product.id > after)
    return ProductsView(items=tuple(ProductView.model_validate(product) for product in session.scalars(statement)))


def list_products(session: Session, wanted: ProductFilter, actor: Actor) -> Json[Page[ProductView]]:
    """Return a page of the products. Raises PermissionDenied if a customer asks for inactive ones."""
    if not wanted.only_active:
        actor.require_admin()
    sort = wanted.sort or DEFAULT_SORT
    keys, descending = (_SORT_KEYS[sort.removeprefix("-")], Product.id), sort.startswith("-")
    filters = partial(_filters, wanted)
    products: Sequence[Product]
    if wanted.search is None:
        statement = select(Product).where(*filters(Product))
        products, cursor = fetch_page(
            session, statement, keys=keys, descending=descending, limit=wanted.limit, cursor=wanted.cursor
        )
    else:
        products, cursor = search.find_page(
            session,
            filters,
            wanted.search,
            keys if wanted.sort else None,
            descending=descending,
            limit=wanted.limit,
            cursor=wanted.cursor,
        )
    return page_of([ProductView.model_validate(product) for product in products], cursor)


def _filters(wanted: ProductFilter, product: Any) -> list[ColumnElement[bool]]:
    """Return the SQL conditions of all filters except the search, for `Product` or an alias of it."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.only_active:
        conditions.append(product.is_active)
    if wanted.sku is not None:
        conditions.append(func.lower(product.sku) == wanted.sku.lower())
    if wanted.min_price is not None:
        conditions.append(product.price >= wanted.min_price)
    if wanted.max_price is not None:
        conditions.append(product.price <= wanted.max_price)
    return conditions
