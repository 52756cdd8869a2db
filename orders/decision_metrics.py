"""Metrics about how orders are decided."""

import time

from contracts.base import Event
from contracts.ids import made_at
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed
from extensions.observability.metrics import Metrics

COUNTED = "Orders confirmed, and orders cancelled, by reason; a confirmed order may be cancelled later."
DECIDED = "From the creation of an order to its decision by the saga or by its deadline."
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
# A person may cancel at any time, so these do not measure how long a decision takes.
BY_A_PERSON = frozenset({CancelReason.USER, CancelReason.ADMIN})


class DecisionMetrics:
    """One for each process. All series are created at the start, so that each is zero before its first order."""

    def __init__(self, metrics: Metrics) -> None:
        self._counts = {
            (decision, reason): metrics.counter("orders_decided_total", COUNTED, decision=decision, reason=reason)
            for decision, reason in [("confirmed", ""), *(("cancelled", reason) for reason in CancelReason)]
        }
        self._seconds = {
            decision: metrics.histogram("order_decision_seconds", DECIDED, SECONDS, decision=decision)
            for decision in ("confirmed", "cancelled")
        }

    def count(self, event: Event) -> None:
        """Count `event` if it is a decision; call this after the commit."""
        if isinstance(event, OrderConfirmed):
            self._count("confirmed", "", event)
        elif isinstance(event, OrderCancelled):
            self._count("cancelled", event.reason, event)

    def _count(self, decision: str, reason: str, event: OrderConfirmed | OrderCancelled) -> None:
        self._counts[decision, reason].inc()
        made = made_at(event.order_id)
        if made is not None and reason not in BY_A_PERSON:
            self._seconds[decision].observe(max(0.0, time.time() - made))
