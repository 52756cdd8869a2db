"""Merges the rows of an import into the products, by sku. It never commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.models import Product
from contracts.base import Cause, Publish
from contracts.catalog import CreateProduct, ProductCreated, ProductUpdated
from contracts.ids import new_id
from extensions.storage.bulk import insert_rows, update_rows

_PRODUCTS: Any = Product.__table__
_FIELDS = tuple(CreateProduct.model_fields)
_DEFAULTS = {name: one.default for name, one in CreateProduct.model_fields.items() if not one.is_required()}


@dataclass
class MergedProducts:
    """What became of the rows: counts, and the versions of changed products."""

    created: int = 0
    unchanged: int = 0
    versions: dict[UUID, int] = field(default_factory=dict)


def merge_products(
    session: Session, rows: Sequence[Mapping[str, Any]], currency: str, publish: Publish, cause: Cause | None = None
) -> MergedProducts:
    """Create the products with new skus, and change the others. Each row has the stated fields of a CreateProduct.

    A field that a row does not state stays as it is. No two rows have the same sku.
    """
    merged = MergedProducts()
    by_key = {str(row["sku"]).lower(): _typed(row) for row in rows}
    known = _locked(session, by_key)
    new = {key: row for key, row in by_key.items() if key not in known}
    ids = _insert(session, new, currency)
    for product in _read(session, ids):
        publish(ProductCreated.model_validate(product, from_attributes=True), cause)
        merged.created += 1
        del new[product.sku.lower()]
    if new:  # created by somebody else in the meantime
        known |= _locked(session, new)
    changed = []
    for key, product in known.items():
        values = by_key[key]
        if all(getattr(product, name) == value for name, value in values.items()):
            merged.unchanged += 1
            continue
        merged.versions[product.id] = product.version + 1
        current = {name: getattr(product, name) for name in _FIELDS}
        changed.append({"id": product.id, "version": product.version + 1, **current, **values})
    update_rows(session, _PRODUCTS, changed)
    for product in _read(session, list(merged.versions)):
        publish(ProductUpdated.model_validate(product, from_attributes=True), cause)
    return merged


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "price": Decimal(row["price"])}


def _locked(session: Session, keys: Mapping[str, Any]) -> dict[str, Product]:
    """Return the existing products by their skus in lower case. They are locked, in the order of their ids."""
    key = func.lower(Product.sku)
    found = select(Product).where(key.in_(list(keys))).order_by(Product.id).with_for_update()
    return {
        product.sku.lower(): product for product in session.scalars(found.execution_options(populate_existing=True))
    }


def _insert(session: Session, rows: Mapping[str, Mapping[str, Any]], currency: str) -> list[UUID]:
    """Insert products, except those whose sku exists by now. Returns the ids that the new ones have."""
    values = [
        {"id": new_id(), "currency": currency, "version": 1, **_DEFAULTS, **row} for _, row in sorted(rows.items())
    ]
    insert_rows(session, _PRODUCTS, values, on_conflict="(lower(sku)) DO NOTHING")
    return [row["id"] for row in values]


def _read(session: Session, ids: Sequence[UUID]) -> Sequence[Product]:
    if not ids:
        return ()
    found = select(Product).where(Product.id.in_(ids)).order_by(Product.id)
    return session.scalars(found.execution_options(populate_existing=True)).all()
