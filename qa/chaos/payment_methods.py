"""The payment methods of the load's orders, which tell the simulated provider what to do (contract section 4)."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class _Used:
    """A payment method that one in `every` orders has."""

    name: str
    every: int
    seen: int = 0  # orders since it is in use
    orders: int = 0  # those that have it


class PaymentMethods:
    """Which payment method the next order has: usually none, which is that of a provider that does its work."""

    def __init__(self):
        self._used, self._lock = [], threading.Lock()

    @contextmanager
    def use(self, name, every):
        """Within the block, the next order and each `every`th after it have the method; yields a function that counts.

        Methods that are used at the same time share the orders.
        """
        used = _Used(name, every)
        with self._lock:
            self._used.append(used)
        try:
            yield lambda: used.orders
        finally:
            with self._lock:
                self._used.remove(used)

    def next(self):
        """The method of the next order, or None."""
        with self._lock:
            due = [one for one in self._used if one.seen % one.every == 0]
            for one in self._used:
                one.seen += 1
            if not due:
                return None
            chosen = min(due, key=lambda one: one.orders)
            chosen.orders += 1
            return chosen.name
