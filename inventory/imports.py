"""Merges the rows of an import into the stock. It never commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from contracts.base import Cause, Publish
from contracts.inventory import StockIsReserved
from extensions.storage.bulk import insert_rows
from inventory import queries, rules
from inventory.ledger import Ledger
from inventory.models import ProductReplica, Stock
from inventory.use_cases import FIRST, SET

_STOCK: Any = Stock.__table__
UNKNOWN = "there is no such product, or inventory has not heard of it yet"
REASON = "import"


@dataclass
class MergedStock:
    """What became of the rows: counts, and (line, field, message) of those that could not be merged."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: list[tuple[int, str, str]] = field(default_factory=list)


def merge_stock(
    session: Session,
    rows: Mapping[int, Mapping[str, Any]],
    publish: Publish,
    *,
    cause: Cause,
    actor_id: UUID | None,
    all_or_nothing: bool,
) -> MergedStock:
    """Set what is on hand of products. `rows` are by line, each with the stated fields of an ImportStock.

    With `all_or_nothing`, an error in one row changes nothing.
    """
    merged = MergedStock()
    wanted = _resolved(session, rows, merged)
    before = queries.lock_stock(session, wanted)
    changes = _changes(wanted, before, merged)
    if merged.errors and all_or_nothing:
        return MergedStock(errors=sorted(merged.errors))
    new = [product_id for product_id in sorted(changes) if product_id not in before]
    empty = [
        {"product_id": product_id, "product_sku": wanted[product_id].sku, "on_hand": 0, "reserved": 0}
        for product_id in new
    ]
    insert_rows(session, _STOCK, empty, on_conflict="DO NOTHING")
    ledger = Ledger(queries.lock_stock(session, changes))
    for product_id in sorted(changes):
        change = rules.set_level(ledger.stock[product_id], changes[product_id])
        if product_id in before and change.on_hand == 0:
            merged.unchanged += 1
            continue
        kind = SET if product_id in before else FIRST
        ledger.enter(product_id, change, kind, cause=cause, reason=REASON, actor_id=actor_id)
        merged.created += product_id not in before
        merged.updated += product_id in before
    ledger.write(session, publish)
    return merged


@dataclass(frozen=True, slots=True)
class _Wanted:
    line: int
    sku: str
    quantity: int


def _resolved(session: Session, rows: Mapping[int, Mapping[str, Any]], merged: MergedStock) -> dict[UUID, _Wanted]:
    """Return the rows by product. Adds an error for an unknown product, a wrong sku, and a product of two rows."""
    replicas = _locked_replicas(session, rows.values())
    by_id = {replica.id: replica for replica in replicas}
    by_sku = {replica.sku.lower(): replica for replica in replicas}
    wanted: dict[UUID, _Wanted] = {}
    for line, row in sorted(rows.items()):
        product_id, sku = row.get("product_id"), row.get("product_sku")
        replica = by_id.get(UUID(product_id)) if product_id else by_sku.get(str(sku).lower())
        if replica is None:
            merged.errors.append((line, "product_id" if product_id else "product_sku", UNKNOWN))
        elif sku and sku.lower() != replica.sku.lower():
            merged.errors.append((line, "product_sku", f"this product's sku is {replica.sku}"))
        elif replica.id in wanted:
            merged.errors.append((line, "product_id", f"is the product of line {wanted[replica.id].line}"))
        else:
            wanted[replica.id] = _Wanted(line, replica.sku, row["quantity"])
    return wanted


def _locked_replicas(session: Session, rows: Any) -> Sequence[ProductReplica]:
    """Return the replicas of the products. Their skus cannot change until the transaction ends."""
    stated = list(rows)
    ids = [UUID(row["product_id"]) for row in stated if row.get("product_id")]
    skus = [row["product_sku"].lower() for row in stated if row.get("product_sku") and not row.get("product_id")]
    found = select(ProductReplica).where(or_(ProductReplica.id.in_(ids), func.lower(ProductReplica.sku).in_(skus)))
    return session.scalars(found.order_by(ProductReplica.id).with_for_update(read=True)).all()


def _changes(
    wanted: Mapping[UUID, _Wanted], before: Mapping[UUID, queries.LockedStock], merged: MergedStock
) -> dict[UUID, int]:
    """Return the new quantities. Adds an error for one below what is reserved."""
    changes = {}
    for product_id, row in wanted.items():
        try:
            rules.set_level(before[product_id].balance if product_id in before else rules.Balance(), row.quantity)
        except StockIsReserved as error:
            merged.errors.append((row.line, "quantity", str(error)))
        else:
            changes[product_id] = row.quantity
    return changes
