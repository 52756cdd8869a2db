"""Nameko dependencies of the orders service: the admission queue, the source of products, the metrics of decisions."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from eventlet.event import Event as Signal
from nameko import config
from nameko.extensions import DependencyProvider

from contracts.base import Event
from contracts.errors import Overloaded
from extensions.observability.metrics import Metrics
from extensions.observability.traces import current_trace
from orders.admission import COUNT_SECONDS, Admission, Limit, Waiting, refusal
from orders.decision_metrics import DecisionMetrics, is_decision, seconds_to_decide
from orders.product_source import ProductSource

# A wait in the queue ends so long before the caller gives up, or longer where placing takes long, so that the order can
# still be placed or refused.
PLACING_SECONDS, LONGEST_PLACING_SECONDS = 0.5, 2.0
# Placing can take this many times as long as on average. The weight of the newest order in the average.
PLACING_FACTOR, NEWEST_SHARE = 1.5, 0.1


def deadline() -> timedelta:
    """Return how long an order may wait for its decision."""
    return timedelta(seconds=float(config["ORDER_DEADLINE_SECONDS"]))


class AdmissionQueue:
    """Lets new orders in as fast as orders are decided, in arrival order. Each process has one."""

    def __init__(self, admission: Admission, wait_seconds: float, count_refusal: Callable[[], object]) -> None:
        """An order waits for at most `wait_seconds`, or until its caller has just enough time left to place it."""
        self.admission = admission
        self._wait_seconds, self._count_refusal = wait_seconds, count_refusal
        self._mean_placing_seconds = 0.0

    def check(self, count: Callable[[], Waiting], *, unless: Callable[[], bool]) -> None:
        """Raise Overloaded if `entered` would raise it at once. Call this before any work for the order."""
        self.admission.recount(count)
        try:
            self.admission.require_capacity()
        except Overloaded:
            if not unless():
                self._count_refusal()
                raise

    @contextmanager
    def entered(self, count: Callable[[], Waiting], *, unless: Callable[[], bool]) -> Iterator[None]:
        """Run the block, which places one order, as soon as there is room. `count()` counts in the database.

        Raises Overloaded if the order cannot be let in in time. If `unless()` is true, the block runs even then: the
        order was placed before.
        """
        try:
            self._enter(count)
        except Overloaded:
            if not unless():
                self._count_refusal()
                raise
            yield
            return
        began = time.monotonic()
        try:
            yield
        finally:
            self._mean_placing_seconds += NEWEST_SHARE * (time.monotonic() - began - self._mean_placing_seconds)
            self.admission.ended()
            self._open()

    def placed(self) -> None:
        """Count an order that was stored."""
        self.admission.placed()

    def decided(self, event: Event) -> None:
        """Let the next order in if `event` decides one."""
        if is_decision(event):
            self.admission.decided(seconds_to_decide(event))
            self._open()

    def _enter(self, count: Callable[[], Waiting]) -> None:
        self.admission.recount(count)
        signal = Signal()
        placing = PLACING_FACTOR * self._mean_placing_seconds
        placing = max(PLACING_SECONDS, min(LONGEST_PLACING_SECONDS, placing))
        seconds = current_trace().remaining(self._wait_seconds + placing) - placing
        if self.admission.enter(signal, seconds):
            return
        try:
            self._wait(signal, time.monotonic() + seconds, count)
        except BaseException:
            if signal.ready():  # the order was let in at the moment at which its wait ended
                self.admission.ended()
            raise
        finally:
            self.admission.leave(signal)
            self._open()

    def _wait(self, signal: Signal, until: float, count: Callable[[], Waiting]) -> None:
        while not signal.ready():
            seconds = until - time.monotonic()
            if seconds <= 0:
                raise refusal()
            signal.wait(timeout=min(seconds, COUNT_SECONDS))
            if not signal.ready():
                self.admission.recount(count)
                self._open()

    def _open(self) -> None:
        """Let in waiting orders while there is room."""
        while (signal := self.admission.admitted()) is not None:
            signal.send(True)


class AdmissionQueueProvider(DependencyProvider):  # type: ignore[misc]  # Nameko has no types
    """Gives the service its admission queue, with the limits from the settings."""

    metrics = Metrics()

    def setup(self) -> None:
        """Read the limits, so that a wrong one stops the service at its start."""
        target = timedelta(seconds=float(config.get("ORDER_DECISION_SECONDS", 1.0)))
        limit = Limit(int(config.get("MAX_UNDECIDED_ORDERS", 1000)), target, deadline())
        admission = Admission(limit, int(config.get("MAX_WAITING_ORDERS", 256)))
        refused = self.metrics.counter("orders_refused_total", "New orders refused, because too many were undecided.")
        self.admission_queue = AdmissionQueue(admission, float(config.get("ORDER_WAIT_SECONDS", 3.5)), refused.inc)
        self.metrics.gauge("orders_undecided_limit", "Orders that may be undecided.", lambda: limit.value)
        self.metrics.gauge("orders_waiting", "New orders in the queue.", lambda: admission.waiting)

    def get_dependency(self, _worker_ctx: Any) -> AdmissionQueue:
        """Return the queue; all workers share it."""
        return self.admission_queue


class ProductSourceProvider(DependencyProvider):  # type: ignore[misc]  # Nameko has no types
    """Gives the service the source of products of this process."""

    metrics = Metrics()

    def setup(self) -> None:
        """Read the age up to which the price of a replica may be used."""
        max_age = timedelta(seconds=float(config.get("PRODUCT_REPLICA_MAX_AGE_SECONDS", 900)))
        short_timeout = float(config.get("CATALOG_PROMPT_SECONDS", 0.1))
        counter = self.metrics.counter("orders_priced_by_replica_total", "Orders priced while catalog was silent.")
        self.source = ProductSource(max_age, short_timeout, counter.inc)

    def get_dependency(self, _worker_ctx: Any) -> ProductSource:
        """Return the source; all workers share it."""
        return self.source


class DecisionMetricsProvider(DependencyProvider):  # type: ignore[misc]  # Nameko has no types
    """Gives the service the metrics of its decisions."""

    metrics = Metrics()

    def setup(self) -> None:
        """Create the metrics."""
        self.decisions = DecisionMetrics(self.metrics)

    def get_dependency(self, _worker_ctx: Any) -> DecisionMetrics:
        """Return the metrics; all workers share them."""
        return self.decisions
