"""Writes stock and its ledger together, so that they always agree, and publishes which stock became low."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import Cause, Publish, Received
from contracts.ids import new_id
from contracts.inventory import StockLow
from extensions.storage.bulk import insert_rows, update_rows
from inventory.models import Base
from inventory.queries import LockedStock
from inventory.rules import Change, Threshold

_STOCK, _MOVEMENTS = (Base.metadata.tables[name] for name in ("stock", "movements"))


class Ledger:
    """Collects changes of stock whose rows this transaction has locked; `write` stores them in two statements."""

    def __init__(self, locked: Mapping[UUID, LockedStock]) -> None:
        self._locked = locked
        self.stock = {product_id: each.balance for product_id, each in locked.items()}
        self._thresholds: dict[UUID, Threshold] = {}
        self._entries: list[dict[str, Any]] = []
        self._causes: dict[UUID, Cause] = {}

    def enter(
        self,
        product_id: UUID,
        change: Change,
        kind: str,
        *,
        cause: Cause,
        order_id: UUID | None = None,
        reason: str | None = None,
        actor_id: UUID | None = None,
    ) -> None:
        """Change the balance of a product that has a stock row. `cause` is the event or the request that changes it."""
        balance = self.stock[product_id] = self.stock[product_id].plus(change)
        self._causes[product_id] = cause
        self._entries.append(
            {
                "id": new_id(),
                "product_id": product_id,
                "kind": kind,
                "on_hand_delta": change.on_hand,
                "reserved_delta": change.reserved,
                "on_hand": balance.on_hand,
                "reserved": balance.reserved,
                "order_id": order_id,
                "reason": reason,
                "actor_id": actor_id,
                "event_id": cause.message_id if isinstance(cause, Received) else None,
                "request_id": cause.request_id,
            }
        )

    def set_threshold(self, product_id: UUID, low_stock: int | None, cause: Cause) -> None:
        """Change the threshold of a product that has a stock row, or remove it."""
        self._thresholds[product_id] = Threshold(low_stock, self._locked[product_id].threshold.is_low)
        self._causes[product_id] = cause

    def write(self, session: Session, publish: Publish) -> None:
        """Store the entries, the new balances, and whether the stock is low now."""
        rows = [self._row(product_id) for product_id in self._causes]
        for row in rows:
            if row["is_low"] and not self._locked[row["product_id"]].threshold.is_low:
                self._announce(row, publish)
        update_rows(session, _STOCK, rows, key="product_id")
        insert_rows(session, _MOVEMENTS, self._entries)

    def _row(self, product_id: UUID) -> dict[str, Any]:
        balance = self.stock[product_id]
        threshold = self._thresholds.get(product_id, self._locked[product_id].threshold)
        return {
            "product_id": product_id,
            "on_hand": balance.on_hand,
            "reserved": balance.reserved,
            "low_stock": threshold.low_stock,
            "is_low": threshold.is_crossed(balance),
        }

    def _announce(self, row: Mapping[str, Any], publish: Publish) -> None:
        product_id = row["product_id"]
        low = StockLow(
            product_id=product_id,
            product_sku=self._locked[product_id].sku,
            available=self.stock[product_id].available,
            threshold=row["low_stock"],
        )
        publish(low, self._causes[product_id])
