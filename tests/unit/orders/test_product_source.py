"""Where the products of an order come from: catalog, its replicas while catalog is silent, or nowhere."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest

from contracts.errors import ServiceUnavailable, UpstreamTimeout
from orders.product_source import (
    COPY_SECONDS,
    MAX_NOTED,
    PROBE_SECONDS,
    CatalogSilent,
    Confirmations,
    Probe,
    ProductSource,
    RecentReplicas,
)
from tests.unit.orders.test_pricing import BOOK, PEN, product

CONFIRMED_AT = datetime(2026, 1, 1, tzinfo=UTC)
PROMPT, PATIENT = 0.1, 3.0


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Catalog:
    """Catalog, its replicas in the database, and the memory between them, which forgets everything."""

    def __init__(self, *products):
        self.clock = Clock()
        self.counted, self.reads = [], []
        self.source = ProductSource(timedelta(minutes=15), PROMPT, lambda: self.counted.append(1))
        self.source._short_calls, self.source._long_calls = Probe(self.clock), Probe(self.clock)
        self.source._recent = RecentReplicas(self.clock)
        self.products = {str(one.id): one for one in products}
        self.replicas = {}
        self.takes = 0.0
        self.asked = []

    def ask(self, ids, seconds):
        self.asked.append(seconds)
        if self.takes > seconds:
            raise UpstreamTimeout
        return {one: self.products[one] for one in ids if one in self.products}

    def find(self, *products, seconds=PATIENT):
        ids = [str(one.id) for one in products]
        return self.source.find(
            ids,
            lambda ids, load: load(list(ids)),
            self.ask,
            self.read,
            seconds,
        )

    def read(self, ids):
        self.reads.append(len(ids))
        return [self.replicas[i] for i in ids if i in self.replicas]

    def replicate(self, made, at=CONFIRMED_AT):
        self.replicas[str(made.id)] = SimpleNamespace(id=made.id, price=Decimal(1), confirmed_at=at)


def test_catalog_confirms_the_products_while_it_responds_promptly():
    catalog = Catalog(PEN, BOOK)
    catalog.replicate(PEN)
    found = catalog.find(PEN, BOOK)
    assert (list(found.products), found.confirmed_at) == ([PEN, BOOK], None)
    assert (catalog.asked, catalog.counted) == ([PROMPT], [])


def test_replicas_decide_while_catalog_is_silent_and_say_when_they_were_confirmed():
    catalog = Catalog(PEN, BOOK)
    catalog.takes = 60.0
    catalog.replicate(PEN)
    catalog.replicate(BOOK, CONFIRMED_AT - timedelta(minutes=5))
    found = catalog.find(PEN, BOOK)
    assert [one.id for one in found.products] == [PEN.id, BOOK.id]
    assert found.confirmed_at == CONFIRMED_AT - timedelta(minutes=5)
    assert (catalog.asked, catalog.counted) == ([PROMPT], [1])


def test_a_silent_catalog_is_asked_only_now_and_then():
    catalog = Catalog(PEN)
    catalog.takes = 60.0
    catalog.replicate(PEN)
    for _ in range(50):
        catalog.find(PEN)
    assert catalog.asked == [PROMPT]
    catalog.clock.now += PROBE_SECONDS
    for _ in range(50):
        catalog.find(PEN)
    assert catalog.asked == [PROMPT] * 2
    catalog.takes = 0.0
    catalog.clock.now += PROBE_SECONDS
    assert [catalog.find(PEN).confirmed_at for _ in range(3)] == [None] * 3
    assert catalog.asked == [PROMPT] * 5


def test_the_table_of_replicas_is_not_read_for_each_order():
    """Else every order would wait for a connection to the database before it waits for its turn."""
    catalog = Catalog(PEN, BOOK)
    catalog.takes = 60.0
    catalog.replicate(PEN)
    catalog.replicate(BOOK)
    for _ in range(50):
        catalog.find(PEN)
    assert catalog.reads == [1]
    for _ in range(50):
        assert len(catalog.find(PEN, BOOK).products) == 2
    assert catalog.reads == [1, 1]
    catalog.replicas.clear()
    catalog.clock.now += COPY_SECONDS
    with pytest.raises(CatalogSilent):
        catalog.find(PEN, BOOK)
    assert catalog.reads == [1, 1, 2]


def test_while_one_order_reads_the_replicas_others_use_the_copies_for_a_limited_time():
    catalog = Catalog(PEN)
    catalog.takes = 60.0
    catalog.replicate(PEN)
    catalog.find(PEN)
    catalog.clock.now += COPY_SECONDS
    read, found = catalog.read, []

    def slow(ids):
        if not found:
            found.append(catalog.find(PEN))
        return read(ids)

    catalog.read = slow
    catalog.find(PEN)
    assert (len(found), catalog.reads) == (1, [1, 1])
    catalog.read = read
    catalog.clock.now += 2 * COPY_SECONDS
    catalog.find(PEN)
    assert catalog.reads == [1, 1, 1]


def test_a_product_without_a_replica_waits_for_a_slow_catalog():
    catalog = Catalog(PEN, BOOK)
    catalog.takes = 1.0
    catalog.replicate(PEN)
    found = catalog.find(PEN, BOOK)
    assert (list(found.products), found.confirmed_at) == ([PEN, BOOK], None)
    assert catalog.asked == [PROMPT, PATIENT]
    catalog.find(BOOK)  # slow is not silent: it is asked again, but not expected to be prompt
    assert catalog.asked == [PROMPT, PATIENT, PATIENT]


def test_a_product_without_a_replica_is_refused_at_once_when_catalog_was_silent_lately():
    catalog = Catalog(PEN)
    catalog.takes = 60.0
    for _ in range(3):
        with pytest.raises(CatalogSilent) as refusal:
            catalog.find(PEN)
        assert (refusal.value.status, refusal.value.retry_after) == (503, 1)
        assert isinstance(refusal.value, ServiceUnavailable)
    assert catalog.asked == [PROMPT, PATIENT]


def test_catalog_is_not_asked_when_the_caller_has_no_time():
    catalog = Catalog(PEN)
    with pytest.raises(CatalogSilent):
        catalog.find(PEN, seconds=-0.1)
    assert catalog.asked == []


def test_a_product_that_catalog_does_not_know_is_no_failure():
    catalog = Catalog(PEN)
    found = catalog.find(PEN, product())
    assert (list(found.products), found.confirmed_at) == ([PEN], None)


class TestConfirmations:
    def store(self, confirmations, locked=()):
        """Store them, but those whose ids are `locked`; returns the products and their ages in seconds."""
        stored = []

        def store(products):
            stored.extend(products)
            return set(locked)

        confirmations.store(store)
        return [(one, age.total_seconds()) for one, age in stored]

    def note(self, confirmations, *products):
        confirmations.note({str(one.id): one for one in products})

    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def confirmations(self, clock):
        return Confirmations(90.0, clock)

    def test_new_products_are_stored_once(self, confirmations, clock):
        self.note(confirmations, PEN, BOOK)
        clock.now += 2
        assert self.store(confirmations) == [(PEN, 2.0), (BOOK, 2.0)]
        self.note(confirmations, PEN, BOOK)
        assert self.store(confirmations) == []

    def test_a_changed_product_is_stored(self, confirmations):
        self.note(confirmations, PEN)
        self.store(confirmations)
        changed = PEN.model_copy(update={"version": 2})
        self.note(confirmations, changed)
        assert self.store(confirmations) == [(changed, 0.0)]

    def test_an_unchanged_product_is_confirmed_now_and_then(self, confirmations, clock):
        self.note(confirmations, PEN)
        self.store(confirmations)
        clock.now += 91
        self.note(confirmations, PEN)
        assert self.store(confirmations) == [(PEN, 0.0)]

    def test_products_that_could_not_be_stored_stay_noted(self, confirmations):
        self.note(confirmations, PEN)

        def down(_products):
            raise ServiceUnavailable

        with pytest.raises(ServiceUnavailable):
            confirmations.store(down)
        assert self.store(confirmations) == [(PEN, 0.0)]

    def test_only_a_locked_product_stays_noted(self, confirmations):
        self.note(confirmations, PEN, BOOK)
        self.store(confirmations, locked=[PEN.id])
        assert self.store(confirmations) == [(PEN, 0.0)]
        assert self.store(confirmations) == []

    def test_their_number_is_bounded(self, confirmations):
        self.note(confirmations, *(product() for _ in range(MAX_NOTED + 1)))
        assert self.store(confirmations) == []
