"""Writes stock and its ledger together, so that they always agree."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.ids import new_id
from extensions.storage.bulk import insert_rows, update_rows
from inventory.models import Base
from inventory.rules import Balance, Change

_STOCK, _MOVEMENTS = (Base.metadata.tables[name] for name in ("stock", "movements"))


class Ledger:
    """Collects changes of stock whose rows this transaction has locked; `write` stores them in two statements."""

    def __init__(self, stock: Mapping[UUID, Balance]) -> None:
        self.stock = dict(stock)
        self._entries: list[dict[str, Any]] = []

    def enter(
        self, product_id: UUID, change: Change, kind: str, *, order_id: UUID | None = None, reason: str | None = None
    ) -> None:
        """Change the balance of a product that has a stock row; the cause is an order or a stated reason."""
        balance = self.stock[product_id] = self.stock[product_id].plus(change)
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
            }
        )

    def write(self, session: Session) -> None:
        """Store the entries and the new balances."""
        if not self._entries:
            return
        changed = {entry["product_id"]: self.stock[entry["product_id"]] for entry in self._entries}
        rows = [
            {"product_id": product_id, "on_hand": balance.on_hand, "reserved": balance.reserved}
            for product_id, balance in changed.items()
        ]
        update_rows(session, _STOCK, rows, key="product_id")
        insert_rows(session, _MOVEMENTS, self._entries)
