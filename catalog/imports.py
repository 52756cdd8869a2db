"""Merges the rows of an import into the products, by sku. It never commits."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Text, any_, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from catalog.models import Product
from contracts.base import Cause, Publish
from contracts.catalog import CreateProduct, ProductCreated, ProductUpdated
from contracts.ids import new_id
from extensions.storage.bulk import insert_rows, update_rows

_PRODUCTS: Any = Product.__table__
_FIELDS = tuple(CreateProduct.model_fields)
_COLUMNS = [_PRODUCTS.c[name] for name in ("id", "currency", "version", "created_at", *_FIELDS)]
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
    for product in _inserted(session, new, currency):
        publish(ProductCreated.model_validate(product), cause)
        merged.created += 1
        del new[product["sku"].lower()]
    if new:  # created by somebody else in the meantime
        known |= _locked(session, new)
    changed = {}
    for key, product in known.items():
        after = product | by_key[key]
        if after == product:
            merged.unchanged += 1
            continue
        changed[product["id"]] = after | {"version": product["version"] + 1}
    for product in _updated(session, changed):
        publish(ProductUpdated.model_validate(product), cause)
        merged.versions[product["id"]] = product["version"]
    return merged


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "price": Decimal(row["price"])}


def _locked(session: Session, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the existing products by their skus in lower case. They are locked, in the order of their ids."""
    key = func.lower(_PRODUCTS.c.sku)
    found = select(*_COLUMNS).where(key == any_(cast(list(keys), ARRAY(Text)))).order_by(_PRODUCTS.c.id)
    return {row.sku.lower(): dict(row._mapping) for row in session.execute(found.with_for_update())}  # noqa: SLF001


def _inserted(session: Session, rows: Mapping[str, Mapping[str, Any]], currency: str) -> Iterator[dict[str, Any]]:
    """Insert products, except those whose sku exists by now. Yields those that were inserted."""
    values = {
        (made := new_id()): {"id": made, "currency": currency, "version": 1, **_DEFAULTS, **row}
        for _, row in sorted(rows.items())
    }
    times = ("id", "created_at", "updated_at")
    written = insert_rows(
        session, _PRODUCTS, list(values.values()), on_conflict="(lower(sku)) DO NOTHING", returning=times
    )
    for row in written:
        yield values[row.id] | {"created_at": row.created_at, "updated_at": row.updated_at}


def _updated(session: Session, products: Mapping[UUID, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Update the products, which are locked. Yields them as they are now."""
    rows = [{name: product[name] for name in ("id", "version", *_FIELDS)} for product in products.values()]
    for row in update_rows(session, _PRODUCTS, rows, returning=("id", "updated_at")):
        yield products[row.id] | {"updated_at": row.updated_at}
