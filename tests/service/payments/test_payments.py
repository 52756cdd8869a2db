"""Payments in a real container: its RPC methods, its handlers, the provider, and races between them."""

from collections import Counter
from decimal import Decimal

import eventlet
import pytest
from nameko import config
from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

from contracts.base import Received
from contracts.errors import ValidationFailed
from contracts.events import handler_name
from contracts.ids import new_id
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import PaymentNotFound
from payments import use_cases
from payments.provider import Operation, ProviderUnavailable, SimulatedProvider
from payments.service import PaymentsService
from payments.simulated_provider import MemoryLedger
from tests.support import database, eventually

MANY = 100  # more than are executed at a time
USER = new_id()
OWNER = {"user_id": str(USER), "roles": ["customer"]}
STRANGER = {"user_id": str(new_id()), "roles": ["customer"]}
ADMIN = {"user_id": str(new_id()), "roles": ["customer", "admin"]}


class WatchedProvider(SimulatedProvider):
    """The simulated provider with a record of its calls. A test can make it unavailable."""

    def __init__(self):
        super().__init__(Decimal("10000.00"), MemoryLedger())
        self.asked = []
        self.done = set()
        self.failures = 0
        self.door = None

    def close(self):
        self.door = eventlet.Event()

    def open(self):
        self.door.send()

    def ask(self, call):
        self.asked.append(call.key)
        if self.door:
            self.door.wait()
        if self.failures:
            self.failures -= 1
            raise ProviderUnavailable
        outcomes = super().ask(call)
        if call.operation is not Operation.AUTHORISE:
            self.done.add((str(call.operation), call.key))
        return outcomes

    @property
    def kinds(self):
        """The kinds of operations performed; repeated requests count once."""
        return sorted(kind for kind, _ in self.done)


@pytest.fixture
def provider():
    return WatchedProvider()


@pytest.fixture
def payments(run_service, caller, provider):
    # A door may be closed for as long as the slowest machine needs.
    with config.patch({"PAYMENT_PROVIDER_DEADLINE_SECONDS": 60}):
        run_service(PaymentsService, provider=provider)
    return caller.payments


@pytest.fixture
def rows(payments):
    """Returns a function that reads the database."""
    engine = database("payments")

    def read(statement, **parameters):
        with engine.connect() as connection:
            return connection.execute(text(statement), parameters).all()

    return read


def created(amount="149.90", user_id=USER):
    return OrderCreated(order_id=new_id(), user_id=user_id, total_amount=Decimal(amount), currency="TRY", items=())


def confirmed(order):
    return OrderConfirmed(
        order_id=order.order_id, user_id=order.user_id, total_amount=order.total_amount, currency=order.currency
    )


def cancelled(order):
    return OrderCancelled(order_id=order.order_id, user_id=order.user_id, reason=CancelReason.USER)


def has_handled(rows, event, messages=1):
    """Check whether the inbox holds this number of messages of this kind of event."""
    return len(rows("SELECT FROM inbox WHERE handler = :handler", handler=handler_name(type(event)))) == messages


def said_by_payments(bus):
    return [event.event_type for event in bus.events() if event.producer == "payments"]


@pytest.mark.usefixtures("payments")
class TestAuthorisation:
    def test_authorises_exactly_the_total_of_the_order(self, payments, bus):
        order = created("149.90")
        message_id = bus.publish(order, application_headers={"x-request-id": "r-1"})
        [event] = bus.wait_for("payment.authorized", order.order_id)
        payment = payments.get_payment_of_order(str(order.order_id))
        assert payment == payments.get_payment(str(event.payment_id), actor=OWNER)
        assert payment["status"] == "AUTHORIZED"
        assert (payment["amount"], payment["currency"], payment["user_id"]) == ("149.90", "TRY", str(USER))
        assert (event.amount, event.currency) == (Decimal("149.90"), "TRY")
        assert payment["transaction_reference"] == event.transaction_reference
        assert payment["failure_reason"] is None
        answer = next(each for each in bus.messages if each.properties.get("type") == "payment.authorized")
        assert (answer.headers["x-request-id"], answer.headers["causation-id"]) == ("r-1", message_id)

    def test_an_amount_up_to_the_limit_is_authorised(self, bus):
        order = created("10000.00")
        bus.publish(order)
        bus.wait_for("payment.authorized", order.order_id)

    def test_an_amount_over_the_limit_fails(self, payments, bus, rows, provider):
        order = created("10000.01")
        bus.publish(order)
        [event] = bus.wait_for("payment.failed", order.order_id)
        assert event.reason == "amount over the limit of 10000.00"
        bus.publish(cancelled(order))
        eventually(lambda: has_handled(rows, cancelled(order)))
        payment = payments.get_payment_of_order(str(order.order_id))
        assert (payment["status"], payment["failure_reason"]) == ("FAILED", event.reason)
        assert payment["transaction_reference"] is None
        assert said_by_payments(bus) == ["payment.failed"]
        assert provider.kinds == []

    def test_more_orders_than_fit_one_batch_are_authorised(self, bus):
        for _ in range(MANY):
            bus.publish(created())
        bus.wait_for("payment.authorized", count=MANY)

    def test_is_retried_while_the_provider_is_unavailable(self, bus, provider):
        provider.failures = 1
        order = created()
        bus.publish(order)
        bus.wait_for("payment.authorized", order.order_id)
        assert len(provider.asked) == 2
        assert len(set(provider.asked)) == 1, "the second attempt must use the key of the first"

    def test_two_instances_authorise_each_payment_once(self, run_service, bus, provider, rows):
        run_service(PaymentsService, provider=provider)
        orders = [created() for _ in range(60)]
        for order in orders:
            bus.publish(order)
        bus.wait_for("payment.authorized", count=60)
        eventlet.sleep(0.2)
        assert Counter(said_by_payments(bus)) == {"payment.authorized": 60}
        assert rows("SELECT status, count(*) FROM payments GROUP BY status") == [("AUTHORIZED", 60)]


@pytest.mark.usefixtures("payments")
class TestAnAuthorisedPayment:
    @pytest.fixture
    def order(self, bus):
        order = created()
        bus.publish(order)
        bus.wait_for("payment.authorized", order.order_id)
        return order

    def test_is_captured_once(self, payments, bus, order, rows, provider):
        message_id = bus.publish(confirmed(order))
        bus.publish(confirmed(order), message_id=message_id)
        bus.publish(confirmed(order))
        bus.publish(order)
        eventually(lambda: has_handled(rows, confirmed(order), 2) and has_handled(rows, order, 2))
        bus.wait_for("payment.captured")
        assert payments.get_payment_of_order(str(order.order_id))["status"] == "CAPTURED"
        assert said_by_payments(bus) == ["payment.authorized", "payment.captured"]
        assert provider.kinds == ["capture"]

    def test_is_voided_and_the_late_confirmation_changes_nothing(self, payments, bus, order, rows, provider):
        bus.publish(cancelled(order))
        bus.wait_for("payment.voided", order.order_id)
        bus.publish(confirmed(order))
        bus.publish(cancelled(order))
        eventually(lambda: has_handled(rows, confirmed(order)) and has_handled(rows, cancelled(order), 2))
        assert payments.get_payment_of_order(str(order.order_id))["status"] == "VOIDED"
        assert said_by_payments(bus) == ["payment.authorized", "payment.voided"]
        assert provider.kinds == ["void"]

    def test_is_refunded_after_it_was_captured(self, payments, bus, order, provider):
        bus.publish(confirmed(order))
        bus.wait_for("payment.captured", order.order_id)
        bus.publish(cancelled(order))
        bus.wait_for("payment.refunded", order.order_id)
        assert payments.get_payment_of_order(str(order.order_id))["status"] == "REFUNDED"
        assert provider.kinds == ["capture", "refund"]


class TestDuringACall:
    """The provider is asked for something while the next event about the order arrives."""

    @pytest.fixture
    def order(self, payments, bus):
        order = created()
        bus.publish(order)
        bus.wait_for("payment.authorized", order.order_id)
        return order

    def test_a_payment_that_is_being_captured_is_captured_and_refunded(self, payments, bus, order, rows, provider):
        provider.close()
        bus.publish(confirmed(order))
        eventually(lambda: f"{order.order_id}:capture" in provider.asked)
        bus.publish(cancelled(order))
        bus.publish(cancelled(order))
        eventually(lambda: has_handled(rows, cancelled(order), 2))
        assert payments.get_payment_of_order(str(order.order_id))["status"] == "AUTHORIZED"
        provider.open()
        bus.wait_for("payment.refunded", order.order_id)
        bus.publish(confirmed(order))
        eventually(lambda: has_handled(rows, confirmed(order), 2))
        assert payments.get_payment_of_order(str(order.order_id))["status"] == "REFUNDED"
        assert said_by_payments(bus) == ["payment.authorized", "payment.captured", "payment.refunded"]
        assert provider.kinds == ["capture", "refund"]

    def test_a_payment_that_is_being_voided_stays_voided(self, payments, bus, order, rows, provider):
        provider.close()
        bus.publish(cancelled(order))
        eventually(lambda: f"{order.order_id}:void" in provider.asked)
        bus.publish(confirmed(order))
        eventually(lambda: has_handled(rows, confirmed(order)))
        provider.open()
        bus.wait_for("payment.voided", order.order_id)
        assert payments.get_payment_of_order(str(order.order_id))["status"] == "VOIDED"
        assert said_by_payments(bus) == ["payment.authorized", "payment.voided"]
        assert provider.kinds == ["void"]
        eventually(lambda: rows("SELECT FROM work_items") == [])


class TestEarlyCancellation:
    @pytest.mark.parametrize(
        ("amount", "status", "said", "done"),
        [("5.00", "VOIDED", "payment.voided", ["void"]), ("10000.01", "FAILED", "payment.failed", [])],
    )
    def test_before_the_outcome_of_the_provider(self, payments, bus, rows, provider, amount, status, said, done):
        provider.close()
        order = created(amount)
        bus.publish(order)
        eventually(lambda: provider.asked)
        bus.publish(cancelled(order))
        bus.publish(cancelled(order))
        eventually(lambda: has_handled(rows, cancelled(order), 2))
        assert payments.get_payment_of_order(str(order.order_id))["status"] == "PENDING"
        assert [each["id"] for each in payments.list_payments(status="PENDING")["items"]]
        provider.open()
        bus.wait_for(said, order.order_id)
        assert payments.get_payment_of_order(str(order.order_id))["status"] == status
        assert said_by_payments(bus) == [said]
        assert provider.kinds == done

    def test_before_the_order_leaves_no_payment(self, payments, bus, rows, provider):
        order = created()
        bus.publish(cancelled(order))
        eventually(lambda: has_handled(rows, cancelled(order)))
        bus.publish(order)
        bus.publish(confirmed(order))
        eventually(lambda: has_handled(rows, order) and has_handled(rows, confirmed(order)))
        with pytest.raises(PaymentNotFound):
            payments.get_payment_of_order(str(order.order_id))
        assert payments.list_payments()["items"] == []
        assert (provider.asked, said_by_payments(bus)) == ([], [])

    def test_in_two_concurrent_transactions(self, rows):
        """Both handlers for an order without a row, while the transaction of the first is kept open."""
        for is_created_first in (True, False):
            order = created()
            slow, quick = (order, cancelled(order)) if is_created_first else (cancelled(order), order)
            started = eventlet.Event()
            first = eventlet.spawn(handle, slow, hold=0.3, started=started)
            started.wait(timeout=5)
            second = eventlet.spawn(handle, quick)
            first.wait()
            second.wait()
        # The service itself may have voided the first one meanwhile.
        [first, second] = rows("SELECT status, amount FROM payments ORDER BY created_at")
        assert first in {("PENDING", Decimal("149.90")), ("VOIDED", Decimal("149.90"))}
        assert second == ("CANCELLED_BEFORE", None)
        eventually(lambda: rows("SELECT status FROM payments ORDER BY created_at")[0] == ("VOIDED",))


def handle(event, hold=0.0, started=None):
    """Handle an event in its own transaction, as another instance would; keep it open for `hold` seconds."""
    with sessionmaker(database("payments")).begin() as session:
        use_cases.apply_order_events(session, [Received(event, new_id(), "request", "trace")])
        if started:
            started.send()
        eventlet.sleep(hold)


def test_a_confirmation_of_an_unknown_order_is_a_dead_letter_and_blocks_no_other(payments, bus):
    good, lost = created(), created()
    bus.publish(good)
    bus.wait_for("payment.authorized", good.order_id)
    bus.publish(confirmed(lost))
    bus.publish(confirmed(good))
    bus.wait_for("payment.captured", good.order_id)
    [dead] = eventually(lambda: payments.list_dead_letters()["items"])
    assert dead["queue"] == "payments.on_order_confirmed"
    assert dead["error"].startswith("PaymentMissing")


class TestReadPermissions:
    @pytest.fixture
    def own(self, payments, bus):
        """Two payments of the owner, the second one failed, and a payment of another user."""
        orders = [created(), created("10000.01"), created(user_id=new_id())]
        for order in orders:
            bus.publish(order)
        bus.wait_for("payment.authorized", count=2)
        bus.wait_for("payment.failed")
        return [payments.get_payment_of_order(str(order.order_id)) for order in orders]

    def test_the_owner_and_the_admin(self, payments, own):
        ids = {payment["id"] for payment in own}
        assert {each["id"] for each in payments.list_payments(actor=OWNER)["items"]} == {own[0]["id"], own[1]["id"]}
        assert {each["id"] for each in payments.list_payments(actor=ADMIN)["items"]} == ids
        assert payments.list_payments(actor=STRANGER)["items"] == []
        assert payments.get_payment(own[2]["id"], actor=ADMIN) == own[2]
        for call in (payments.get_payment, lambda _, actor: payments.get_payment_of_order(own[0]["order_id"], actor)):
            with pytest.raises(PaymentNotFound):
                call(own[0]["id"], actor=STRANGER)

    def test_filters_and_pages(self, payments, own):
        assert payments.list_payments(status="FAILED", actor=OWNER)["items"] == [own[1]]
        assert payments.list_payments(order_id=own[0]["order_id"])["items"] == [own[0]]
        assert payments.list_payments(order_id=own[2]["order_id"], actor=OWNER)["items"] == []
        page = payments.list_payments(limit=2)
        rest = payments.list_payments(limit=2, cursor=page["next_cursor"])
        listed = [each["id"] for each in page["items"] + rest["items"]]
        assert listed == sorted((payment["id"] for payment in own), reverse=True)

    @pytest.mark.parametrize(
        "wrong", [{"status": "CANCELLED_BEFORE"}, {"order_id": "1"}, {"limit": 101}, {"cursor": "x"}]
    )
    def test_wrong_filters_are_named(self, payments, wrong):
        with pytest.raises(ValidationFailed, match=next(iter(wrong))):
            payments.list_payments(**wrong)
