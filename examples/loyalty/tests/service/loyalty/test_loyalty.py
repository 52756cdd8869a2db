"""Points in a real container: once for each order, in every order of arrival."""

from decimal import Decimal
from itertools import permutations

import pytest

from contracts.errors import PermissionDenied
from contracts.ids import new_id
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed
from loyalty.service import LoyaltyService
from tests.support import database, eventually


@pytest.fixture
def loyalty(shared_services, caller):
    shared_services(LoyaltyService)
    return caller.loyalty


def confirmed(user, order, amount="149.90"):
    return OrderConfirmed(order_id=order, user_id=user, total_amount=Decimal(amount), currency="TRY")


def cancelled(user, order):
    return OrderCancelled(order_id=order, user_id=user, reason=CancelReason.USER)


@pytest.fixture
def handled(loyalty, bus):
    """Returns a function that publishes events one after the other, each when the one before was handled."""

    def publish(*events):
        for number, event in enumerate(events, handled_messages() + 1):
            bus.publish(event)
            eventually(lambda number=number: handled_messages() == number)

    return publish


def handled_messages():
    with database("loyalty").connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM inbox").scalar()


def test_each_confirmed_order_gives_its_points_once(loyalty, handled):
    user, first, second = new_id(), new_id(), new_id()
    handled(confirmed(user, first), confirmed(user, second, "10.99"), confirmed(user, first))
    assert loyalty.get_points(str(user)) == 149 + 10


@pytest.mark.parametrize("order_of_arrival", [*permutations(range(3))])
def test_a_cancelled_order_gives_none_whatever_arrives_first(loyalty, handled, order_of_arrival):
    user, order = new_id(), new_id()
    events = [confirmed(user, order), cancelled(user, order), cancelled(user, order)]
    handled(*(events[index] for index in order_of_arrival))
    assert loyalty.get_points(str(user)) == 0


def test_points_are_shown_to_their_owner_only(loyalty):
    user = new_id()
    assert loyalty.get_points(str(user), actor={"user_id": str(user), "roles": ["customer"]}) == 0
    with pytest.raises(PermissionDenied):
        loyalty.get_points(str(user), actor={"user_id": str(new_id()), "roles": ["customer"]})
