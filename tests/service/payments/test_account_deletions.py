"""What becomes of the payments of users who delete their accounts, and the export of payments."""

from datetime import timedelta
from decimal import Decimal

import pytest
import sqlalchemy

from contracts.errors import PermissionDenied
from contracts.users import UserDeleted
from extensions.storage import deleted_users
from extensions.storage.periodic import PeriodicMethods
from payments import account_deletions
from payments.provider import SimulatedProvider
from payments.service import PaymentsService
from payments.simulated_provider import MemoryLedger
from tests.service.payments.test_payments import ADMIN, OWNER, STRANGER, USER, cancelled, confirmed, created
from tests.support import database, eventually

METHOD = "pm_duplicate_answer"


@pytest.fixture
def container(run_service):
    return run_service(PaymentsService, provider=SimulatedProvider(Decimal("10000.00"), MemoryLedger()))


@pytest.fixture
def payments(container, caller):
    return caller.payments


def order(method=METHOD, amount="149.90", user_id=USER):
    return created(amount, user_id).model_copy(update={"payment_method": method})


def stored(one):
    """What the payment of an order says about how the user paid: the method and why it was declined."""
    with database("payments").connect() as connection:
        statement = "SELECT status, payment_method, failure_reason FROM payments WHERE order_id = :id"
        return tuple(connection.execute(sqlalchemy.text(statement), {"id": one.order_id}).one_or_none() or ())


def reaches(one, status, bus=None, *events):
    for event in events:
        bus.publish(event)
    eventually(lambda: stored(one)[:1] == (status,))


def check_again(container):
    with database("payments").begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE deleted_users SET check_at = now()"))
    container.shared_extensions[PeriodicMethods].trigger("clear_payments_of_deleted_users")


def test_how_the_user_paid_is_removed_and_the_amounts_stay(payments, bus):
    captured, declined, others = order(), order("pm_declined"), order(user_id=STRANGER["user_id"])
    reaches(captured, "AUTHORIZED", bus, captured)
    reaches(captured, "CAPTURED", bus, confirmed(captured))
    reaches(declined, "FAILED", bus, declined)
    reaches(others, "AUTHORIZED", bus, others)
    assert stored(declined)[2]
    before = payments.get_payment_of_order(str(captured.order_id))
    bus.publish(UserDeleted(user_id=USER))
    eventually(lambda: stored(captured) == ("CAPTURED", "pm_ok", None))
    eventually(lambda: stored(declined) == ("FAILED", "pm_ok", None))
    assert stored(others)[1] == METHOD
    after = payments.get_payment_of_order(str(captured.order_id))
    assert after | {"updated_at": ""} == before | {"updated_at": ""}


def test_a_payment_keeps_its_method_until_the_provider_needs_it_no_more(payments, bus, container):
    one = order()
    reaches(one, "AUTHORIZED", bus, one)
    bus.publish(UserDeleted(user_id=USER))
    eventually(checked)
    assert stored(one)[1] == METHOD
    reaches(one, "VOIDED", bus, cancelled(one))
    check_again(container)
    eventually(lambda: stored(one) == ("VOIDED", "pm_ok", None))


def checked():
    with database("payments").connect() as connection:
        return connection.scalar(sqlalchemy.text("SELECT count(*) FROM deleted_users WHERE check_at > now()"))


@pytest.mark.parametrize("declined", [False, True])
def test_an_order_that_arrives_later_brings_nothing_back(payments, bus, container, declined):
    bus.publish(UserDeleted(user_id=USER))
    eventually(checked)
    late = order("pm_declined" if declined else METHOD)
    bus.publish(late)
    if declined:
        reaches(late, "FAILED")
    else:
        reaches(late, "VOIDED", bus, cancelled(late))
    check_again(container)
    eventually(lambda: stored(late)[1:] == ("pm_ok", None))


def test_more_payments_than_one_transaction_takes(payments, bus, monkeypatch):
    monkeypatch.setattr(account_deletions, "CLEAR_BATCH", 2)
    monkeypatch.setattr(deleted_users, "CHECKS", (timedelta(hours=1),))  # a later check does not help
    made = [order("pm_declined") for _ in range(5)]
    for one in made:
        reaches(one, "FAILED", bus, one)
    bus.publish(UserDeleted(user_id=USER))
    for one in made:
        eventually(lambda one=one: stored(one)[1:] == ("pm_ok", None))


def test_the_export_has_all_that_is_kept_about_the_payments(payments, bus):
    made = [order() for _ in range(3)]
    for one in (*made, order(user_id=STRANGER["user_id"])):
        reaches(one, "AUTHORIZED", bus, one)
    first = payments.export_payments(str(USER), limit=2, actor=OWNER)
    rest = payments.export_payments(str(USER), cursor=first["next_cursor"], actor=ADMIN)
    exported = [item for page in (first, rest) for item in page["items"]]
    assert {item["order_id"] for item in exported} == {str(one.order_id) for one in made}
    assert {item["payment_method"] for item in exported} == {METHOD}
    one = exported[0]
    assert one == payments.get_payment(one["id"]) | {"payment_method": METHOD}
    with pytest.raises(PermissionDenied):
        payments.export_payments(str(USER), actor=STRANGER)
