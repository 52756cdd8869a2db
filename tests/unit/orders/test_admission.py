"""Admission control: one count serves many requests; orders that cannot be decided in time are refused."""

from datetime import timedelta

import pytest

from orders.admission import COUNT_SECONDS, Admission, Waiting


class Shop:
    """A clock, and a database that counts undecided orders and its own queries."""

    def __init__(self, undecided=0, late=0):
        self.now, self.undecided, self.late, self.counted = 100.0, undecided, late, 0

    def count(self):
        self.counted += 1
        return Waiting(self.undecided, self.late)

    def admission(self, limit=10):
        return Admission(limit, timedelta(seconds=30), clock=lambda: self.now)


def taken(admission, shop, tries):
    took = 0
    for _ in range(tries):
        if admission.has_room(shop.count):
            admission.took_one()
            took += 1
    return took


def test_orders_are_admitted_up_to_the_limit():
    shop = Shop(undecided=3)
    assert taken(shop.admission(), shop, 20) == 7


def test_one_count_serves_many_requests():
    shop = Shop()
    admission = shop.admission()
    for _ in range(5):
        taken(admission, shop, 30)
        shop.now += COUNT_SECONDS
    assert shop.counted == 5


@pytest.mark.parametrize(("decided_since", "room"), [(0, 0), (1, 1), (10, 10)])
def test_decided_orders_make_room(decided_since, room):
    shop = Shop(undecided=10)
    admission = shop.admission()
    assert taken(admission, shop, 5) == 0
    shop.undecided -= decided_since
    assert taken(admission, shop, 5) == 0  # not counted yet
    shop.now += COUNT_SECONDS
    assert taken(admission, shop, 20) == room


def test_orders_admitted_by_other_replicas_are_seen_at_the_next_count():
    shop = Shop()
    first, second = shop.admission(), shop.admission()
    shop.undecided += taken(first, shop, 8)
    shop.now += COUNT_SECONDS
    shop.undecided += taken(second, shop, 8)
    assert shop.undecided == 10


@pytest.mark.parametrize(("late", "room"), [(0, True), (49, True), (50, False)])
def test_many_late_orders_reduce_the_room(late, room):
    shop = Shop(undecided=100, late=late)
    admission = shop.admission(limit=400)
    assert admission.has_room(shop.count) is room
    assert admission.late_after == timedelta(seconds=2.5)


def test_the_previous_count_is_used_while_the_database_does_not_respond():
    shop = Shop(undecided=10)
    admission = shop.admission()
    assert not admission.has_room(shop.count)
    shop.now += COUNT_SECONDS

    def down():
        assert not admission.has_room(shop.count)  # a concurrent request
        raise ConnectionError

    with pytest.raises(ConnectionError):
        admission.has_room(down)
    assert not admission.has_room(shop.count)
