"""Stores the replicas of catalog's products, from which orders are priced while catalog is silent."""

import logging
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from contracts.errors import ServiceUnavailable
from orders.models import REPLICATE_PRODUCTS, ProductReplica
from orders.pricing import Product

log = logging.getLogger(__name__)

# Locked rows are skipped. For other locks, such as one on the table, neither the timer nor an order waits longer.
LOCK_TIMEOUT = "500ms"


def replicate_products(session: Session, products: Sequence[tuple[Product, timedelta]]) -> None:
    """Store products, each with the age of its confirmation. A stored newer version stays."""
    newest: dict[UUID, tuple[Product, timedelta]] = {}
    for product, age in products:
        if product.id not in newest or product.version > newest[product.id][0].version:
            newest[product.id] = product, age
    if newest:
        rows = newest.values()
        columns = ("id", "sku", "price", "is_active", "version")
        values: dict[str, list[Any]] = {name: [getattr(product, name) for product, _ in rows] for name in columns}
        session.execute(REPLICATE_PRODUCTS, values | {"age": [age for _, age in rows]})


def replicate_unlocked(session: Session, products: Sequence[tuple[Product, timedelta]]) -> set[UUID]:
    """As `replicate_products`, without those whose replicas are locked. Returns the ids of the locked replicas."""
    ids = [product.id for product, _ in products]
    replicas = select(ProductReplica.id).where(ProductReplica.id.in_(ids))
    free = set(session.scalars(replicas.order_by(ProductReplica.id).with_for_update(skip_locked=True)))
    locked = set() if len(free) == len(set(ids)) else set(session.scalars(replicas)) - free
    replicate_products(session, [each for each in products if each[0].id not in locked])
    return locked


def store(work: Any, products: Sequence[tuple[Product, timedelta]]) -> Collection[UUID]:
    """Store products, each alone where together they fail. Returns the ids of the locked replicas."""
    try:
        return _store_together(work, products)
    except ServiceUnavailable:
        raise
    except Exception as error:  # noqa: BLE001  (whatever it is, it must not stop the other products)
        log.warning("%d products could not be stored together (%r); each is stored alone", len(products), error)
    return {locked for product in products for locked in _store_one(work, product)}


def _store_one(work: Any, product: tuple[Product, timedelta]) -> Collection[UUID]:
    try:
        return _store_together(work, [product])
    except ServiceUnavailable:
        raise
    except Exception:
        log.exception("product %s cannot be stored", product[0].id)
        return ()


def _store_together(work: Any, products: Sequence[tuple[Product, timedelta]]) -> Collection[UUID]:
    with work.transaction(lock_timeout=LOCK_TIMEOUT) as session:
        return replicate_unlocked(session, products)
