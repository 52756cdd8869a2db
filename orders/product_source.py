"""Where the products of a new order come from: catalog, or replicas in the orders database if catalog does not respond.

Pure code: the calls to catalog and the queries are passed as arguments.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from contracts.catalog import ProductView
from contracts.errors import ServiceUnavailable, UpstreamTimeout
from orders.models import ProductReplica
from orders.pricing import Product

# While catalog does not respond, it is called for one order in this time, as a probe.
PROBE_SECONDS = 1.0
# The confirmation of an unchanged replica is stored again after this share of the age up to which it may be used.
REFRESH_SHARE = 0.1
MAX_NOTED = 10_000
# While catalog is silent, a replica is read again from the table after this time.
COPY_SECONDS = 1.0

Load = Callable[[list[str]], Mapping[str, ProductView]]
Get = Callable[[Sequence[str], Load], Mapping[str, ProductView]]
Ask = Callable[[Sequence[str], float], Mapping[str, ProductView]]
Replicas = Callable[[Sequence[str]], Sequence[ProductReplica]]

UNKNOWN = "The catalog does not respond, and some of these products have no local copy. Nothing was done; try again."


class CatalogSilent(ServiceUnavailable):
    """Catalog has not responded lately, so it is not called now."""

    detail = UNKNOWN


@dataclass(frozen=True, slots=True)
class Found:
    """The products of an order. `confirmed_at` is the oldest confirmation of the replicas; None without replicas."""

    products: Sequence[Product]
    confirmed_at: datetime | None = None


class Probe:
    """Decides whether to call a service that may not respond: after a failure once in PROBE_SECONDS."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed = False
        self._again_at = 0.0

    def may_call(self) -> bool:
        """Tell whether to call now."""
        if not self._failed:
            return True
        if self._clock() < self._again_at:
            return False
        self._again_at = self._clock() + PROBE_SECONDS
        return True

    def succeeded(self) -> None:
        """Record a response."""
        self._failed = False

    def failed(self) -> None:
        """Record a call without a response."""
        self._failed = True
        self._again_at = self._clock() + PROBE_SECONDS


class Confirmations:
    """The products that catalog returned to this process and that are not stored yet.

    A timer stores them, so that orders do not become slower. A product is stored if it is new, if it has changed, or if
    its stored confirmation is old.
    """

    def __init__(self, refresh_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._refresh_seconds, self._clock = refresh_seconds, clock
        self._stored: dict[str, tuple[int, float]] = {}
        self._pending: dict[str, tuple[ProductView, float]] = {}

    def note(self, products: Mapping[str, ProductView]) -> None:
        """Note products that catalog has just returned, by id."""
        now = self._clock()
        for product_id, product in products.items():
            version, at = self._stored.get(product_id, (0, 0.0))
            if product.version != version or now - at > self._refresh_seconds:
                self._pending[product_id] = product, now
        if len(self._pending) > MAX_NOTED:  # the database has not responded for long
            self._pending.clear()

    def store(self, store: Callable[[Sequence[tuple[Product, timedelta]]], Collection[UUID]]) -> None:
        """Call `store` with the noted products, if there are any, each with the time since its confirmation.

        `store` returns the ids of those whose rows are locked: these stay noted. If it raises, all products do.
        """
        if not self._pending:
            return
        now, noted = self._clock(), dict(self._pending)
        locked = store([(product, timedelta(seconds=now - at)) for product, at in noted.values()])
        for product_id, (product, at) in noted.items():
            if product.id in locked:
                continue
            if self._pending.get(product_id) == (product, at):  # not confirmed again in the meantime
                del self._pending[product_id]
            self._stored[product_id] = product.version, at
        if len(self._stored) > MAX_NOTED:
            self._stored.clear()


class RecentReplicas:
    """Copies of replicas that were read lately: while catalog is silent, not every order has to read the table."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._copies: dict[str, tuple[ProductReplica, float]] = {}

    def get(self, product_ids: Sequence[str], read: Replicas) -> Sequence[ProductReplica]:
        """Return the replicas of these products that exist. `read` reads those of which there is no recent copy."""
        now = self._clock()
        copies = {key: self._copies[key] for key in product_ids if key in self._copies}
        recent = {key: replica for key, (replica, at) in copies.items() if now - at < COPY_SECONDS}
        missing = [key for key in product_ids if key not in recent]
        if not missing:
            return list(recent.values())
        for key in missing:  # others use the older copies while this one reads, unless it takes too long
            if key in copies and now - copies[key][1] < 2 * COPY_SECONDS:
                self._copies[key] = copies[key][0], now - COPY_SECONDS / 2
        found = {str(replica.id): replica for replica in read(missing)}
        for key in missing:
            self._copies.pop(key, None)
        if len(self._copies) > MAX_NOTED:
            self._copies.clear()
        self._copies |= {key: (replica, now) for key, replica in found.items()}
        return list((recent | found).values())


class ProductSource:
    """Finds the products of new orders. Each process has one."""

    def __init__(self, max_age: timedelta, short_timeout: float, count: Callable[[], object]) -> None:
        """Replicas are used if catalog takes longer than `short_timeout`, and if they were confirmed within `max_age`.

        `short_timeout` is in seconds. `count()` is called for each order that uses replicas.
        """
        self.max_age = max_age
        self.confirmations = Confirmations(max_age.total_seconds() * REFRESH_SHARE)
        self._short_timeout, self._count = short_timeout, count
        self._short_calls, self._long_calls = Probe(), Probe()
        self._recent = RecentReplicas()

    def find(self, product_ids: Sequence[str], get: Get, ask: Ask, replicas: Replicas, seconds: float) -> Found:
        """Return the products of an order that exist.

        `get` returns copies in memory, and loads those that are missing. `ask` calls catalog. `replicas` reads the
        table of replicas. If the table lacks a product, catalog may take up to `seconds`. Raises CatalogSilent.
        """
        with suppress(ServiceUnavailable, UpstreamTimeout):
            return self._confirmed(product_ids, get, ask, self._short_calls, min(seconds, self._short_timeout))
        kept = self._recent.get(product_ids, replicas)
        if len(kept) == len(product_ids):
            self._count()
            return Found(kept, min(replica.confirmed_at for replica in kept))
        try:
            return self._confirmed(product_ids, get, ask, self._long_calls, seconds)
        except (ServiceUnavailable, UpstreamTimeout) as error:
            raise CatalogSilent(retry_after=1) from error

    def _confirmed(self, product_ids: Sequence[str], get: Get, ask: Ask, probe: Probe, seconds: float) -> Found:
        def load(missing: Sequence[str]) -> Mapping[str, ProductView]:
            if seconds <= 0 or not probe.may_call():
                raise CatalogSilent(retry_after=1)
            try:
                found = ask(missing, seconds)
            except (ServiceUnavailable, UpstreamTimeout):
                probe.failed()
                raise
            probe.succeeded()
            self.confirmations.note(found)
            return found

        return Found(list(get(product_ids, load).values()))
