"""Refunds in a real container: in full and in part, repeated, and in races with each other and with a cancellation."""

from contextlib import contextmanager
from decimal import Decimal

import eventlet
import pytest
from nameko import config
from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

from contracts.base import OPERATOR, Received, StoredCause
from contracts.errors import IdempotencyKeyReused, InvalidState, PermissionDenied, ValidationFailed
from contracts.events import handler_name
from contracts.ids import new_id
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import PaymentNotFound, RefundPayment
from payments import attempts, audit, refunds, use_cases
from payments.provider import Operation, ProviderRefuses, SimulatedProvider
from payments.service import PaymentsService
from payments.simulated_provider import MemoryLedger
from tests.support import database, eventually

USER = new_id()
CUSTOMER = {"user_id": str(USER), "roles": ["customer"]}
ADMIN = {"user_id": str(new_id()), "roles": ["customer", "admin"]}
PATIENT = {"PAYMENT_PROVIDER_DEADLINE_SECONDS": 60, "PAYMENT_RETRY_SECONDS": 0.05, "PAYMENT_MAX_RETRY_SECONDS": 0.2}
TOTAL = Decimal("149.90")


class Provider(SimulatedProvider):
    """The simulated provider; a test can hold its calls."""

    def __init__(self):
        self.memory = MemoryLedger()
        super().__init__(Decimal("10000.00"), self.memory)
        self.asked = []
        self.door = None
        self.refuses = lambda _call: False

    def ask(self, call):
        self.asked.append(call)
        if self.door:
            self.door.wait()
        if self.refuses(call):
            raise ProviderRefuses("not this one")
        return super().ask(call)

    @contextmanager
    def held(self):
        """Hold all calls inside the block."""
        door = self.door = eventlet.Event()
        yield
        self.door = None
        door.send()

    def refunded(self, order):
        return [f"{amount:.2f}" for amount in self.memory.refunded(f"{order.order_id}:authorise")]

    def is_asked(self, operation):
        return any(call.operation is operation for call in self.asked)


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def payments(run_service, caller, provider):
    with config.patch(PATIENT):
        run_service(PaymentsService, provider=provider)
    return caller.payments


@pytest.fixture
def rows(payments):
    """Returns a function that reads or changes the database of payments."""
    engine = database("payments")

    def run(statement, **parameters):
        with engine.begin() as connection:
            found = connection.execute(text(statement), parameters)
            return found.all() if found.returns_rows else []

    return run


@pytest.fixture
def captured(payments, bus):
    """Returns a function that makes an order whose payment is captured; it returns the order and the payment's id."""

    def capture(method="pm_ok", amount=TOTAL):
        order = created(method, amount)
        bus.publish(order)
        bus.wait_for("payment.authorized", order.order_id)
        bus.publish(confirmed(order))
        [event] = bus.wait_for("payment.captured", order.order_id)
        return order, str(event.payment_id)

    return capture


def created(method="pm_ok", amount=TOTAL):
    return OrderCreated(
        order_id=new_id(), user_id=USER, total_amount=amount, currency="TRY", items=(), payment_method=method
    )


def confirmed(order):
    return OrderConfirmed(
        order_id=order.order_id, user_id=order.user_id, total_amount=order.total_amount, currency=order.currency
    )


def cancelled(order):
    return OrderCancelled(order_id=order.order_id, user_id=order.user_id, reason=CancelReason.USER)


def refund(payments, payment_id, amount=None, **more):
    return payments.refund_payment(payment_id, amount, "a complaint", actor=ADMIN, **more)


def said(bus, order):
    """What payments has published about the refunds of an order: (event, amount, remaining)."""
    return [
        (event.event_type, f"{event.amount:.2f}", f"{getattr(event, 'remaining', 0):.2f}")
        for event in bus.events()
        if event.event_type in {"payment.partially_refunded", "payment.refunded"} and event.order_id == order.order_id
    ]


def is_settled(rows):
    return rows("SELECT FROM work_items") == [] and rows("SELECT FROM refunds WHERE status = 'PENDING'") == []


def checks(servers):
    with sessionmaker(database("payments")).begin() as session:
        return {check["name"]: check["count"] for check in audit.checks(session)}


SOUND = {"refunds_sum": 0, "refunds_within_capture": 0}


def test_a_refund_without_an_amount_gives_back_everything(payments, bus, captured, provider, servers):
    order, payment_id = captured()
    asked = refund(payments, payment_id)
    assert (asked["payment_id"], asked["order_id"]) == (payment_id, str(order.order_id))
    assert (asked["amount"], asked["currency"], asked["status"]) == ("149.90", "TRY", "PENDING")
    assert (asked["reason"], asked["requested_by"]) == ("a complaint", ADMIN["user_id"])
    [event] = bus.wait_for("payment.refunded", order.order_id)
    assert (event.amount, event.currency, event.user_id) == (TOTAL, "TRY", USER)
    payment = payments.get_payment(payment_id, actor=CUSTOMER)
    assert (payment["status"], payment["refunded_amount"]) == ("REFUNDED", "149.90")
    [made] = payments.list_refunds(payment_id, actor=ADMIN)["items"]
    assert made == asked | {"status": "SUCCEEDED", "completed_at": made["completed_at"]}
    assert provider.refunded(order) == ["149.90"]
    with pytest.raises(InvalidState, match="refunded already"):
        refund(payments, payment_id)
    assert checks(servers) == SOUND


def test_refunds_in_parts_up_to_what_is_left(payments, bus, captured, provider, rows, servers):
    order, payment_id = captured()
    refund(payments, payment_id, "50.00")
    [event] = bus.wait_for("payment.partially_refunded", order.order_id)
    assert (event.amount, event.remaining, event.currency) == (Decimal("50.00"), Decimal("99.90"), "TRY")
    payment = payments.get_payment(payment_id)
    assert (payment["status"], payment["refunded_amount"]) == ("PARTIALLY_REFUNDED", "50.00")
    assert payments.list_payments(status="PARTIALLY_REFUNDED")["items"] == [payment]
    with pytest.raises(InvalidState, match=r"99\.90 TRY .* are left"):
        refund(payments, payment_id, "99.91")
    refund(payments, payment_id, "49.90")
    refund(payments, payment_id)
    bus.wait_for("payment.refunded", order.order_id)
    assert said(bus, order) == [
        ("payment.partially_refunded", "50.00", "99.90"),
        ("payment.partially_refunded", "49.90", "50.00"),
        ("payment.refunded", "50.00", "0.00"),
    ]
    assert provider.refunded(order) == ["50.00", "49.90", "50.00"]
    assert len({call.key for call in provider.asked if call.operation is Operation.REFUND}) == 3
    page = payments.list_refunds(payment_id, limit=2, actor=ADMIN)
    rest = payments.list_refunds(payment_id, limit=2, cursor=page["next_cursor"], actor=ADMIN)
    assert [each["amount"] for each in page["items"] + rest["items"]] == ["50.00", "49.90", "50.00"]
    assert is_settled(rows)
    assert checks(servers) == SOUND


def test_the_event_of_a_refund_continues_the_request(payments, bus, captured):
    order, payment_id = captured()
    refund(payments, payment_id, "1.00")
    bus.wait_for("payment.partially_refunded", order.order_id)
    by_type = {message.properties.get("type"): message.headers for message in bus.messages}
    assert by_type["payment.partially_refunded"]["x-request-id"] != by_type["payment.captured"]["x-request-id"]
    assert "causation-id" not in by_type["payment.partially_refunded"]


def test_the_same_key_refunds_once(payments, captured, provider, bus, rows):
    order, payment_id = captured()
    first = refund(payments, payment_id, "10.00", idempotency_key="once")
    assert refund(payments, payment_id, "10.00", idempotency_key="once") == first
    with pytest.raises(IdempotencyKeyReused):
        refund(payments, payment_id, "11.00", idempotency_key="once")
    bus.wait_for("payment.partially_refunded", order.order_id)
    eventually(lambda: is_settled(rows))
    assert provider.refunded(order) == ["10.00"]


def test_only_an_administrator_refunds_and_reads_attempts(payments, captured):
    _, payment_id = captured()
    for call in (
        lambda: payments.refund_payment(str(new_id()), None, "mine", actor=CUSTOMER),
        lambda: payments.list_refunds(payment_id, actor=CUSTOMER),
        lambda: payments.list_attempts(payment_id, actor=CUSTOMER),
    ):
        with pytest.raises(PermissionDenied):
            call()
    for call in (lambda: refund(payments, str(new_id())), lambda: payments.list_attempts(str(new_id()), actor=ADMIN)):
        with pytest.raises(PaymentNotFound):
            call()


@pytest.mark.parametrize(
    ("amount", "reason", "field"),
    [("0.00", "x", "amount"), ("-1.00", "x", "amount"), (1, "x", "amount"), ("1.001", "x", "amount"),
     (None, " ", "reason"), (None, "two\nlines", "reason"), (None, None, "reason")],
)  # fmt: skip
def test_wrong_fields_are_named(payments, amount, reason, field):
    with pytest.raises(ValidationFailed, match=field):
        payments.refund_payment(str(new_id()), amount, reason, actor=ADMIN)


class TestRaces:
    def test_nothing_is_refunded_before_it_is_captured(self, payments, bus, provider, rows, servers):
        order = created()
        bus.publish(order)
        [event] = bus.wait_for("payment.authorized", order.order_id)
        with pytest.raises(InvalidState, match="AUTHORIZED"):
            refund(payments, str(event.payment_id))
        with provider.held():
            bus.publish(confirmed(order))
            eventually(lambda: provider.is_asked(Operation.CAPTURE))
            with pytest.raises(InvalidState, match="AUTHORIZED"):
                refund(payments, str(event.payment_id), "1.00")
            bus.publish(cancelled(order))
            eventually(lambda: rows("SELECT FROM payments WHERE cancel_requested"))
            with pytest.raises(InvalidState, match="AUTHORIZED"):
                refund(payments, str(event.payment_id), "1.00")
        bus.wait_for("payment.refunded", order.order_id)
        assert provider.refunded(order) == ["149.90"]
        assert checks(servers) == SOUND

    def test_concurrent_refunds_are_never_more_than_what_was_captured(self, payments, bus, captured, provider, rows):
        order, payment_id = captured()
        results = []

        def ask():
            try:
                results.append(refund(payments, payment_id, "60.00")["status"])
            except InvalidState as error:
                results.append(str(error))

        with provider.held():
            for greenlet in [eventlet.spawn(ask) for _ in range(6)]:
                greenlet.wait()
            assert sorted(results) == ["29.90 TRY of this payment are left to refund."] * 4 + ["PENDING"] * 2
        eventually(lambda: is_settled(rows))
        assert provider.refunded(order) == ["60.00", "60.00"]
        assert said(bus, order) == [
            ("payment.partially_refunded", "60.00", "89.90"),
            ("payment.partially_refunded", "60.00", "29.90"),
        ]

    def test_a_refund_in_progress_and_then_a_cancellation(self, payments, bus, captured, provider, servers):
        order, payment_id = captured()
        with provider.held():
            refund(payments, payment_id, "20.00")
            eventually(lambda: provider.is_asked(Operation.REFUND))
            refund(payments, payment_id, "30.00")
            bus.publish(cancelled(order))
            eventually(lambda: has_handled(cancelled(order)))
            with pytest.raises(InvalidState, match="cancelled"):
                refund(payments, payment_id, "1.00")
            assert payments.get_payment(payment_id)["status"] == "CAPTURED"
        bus.wait_for("payment.refunded", order.order_id)
        assert said(bus, order) == [
            ("payment.partially_refunded", "20.00", "129.90"),
            ("payment.partially_refunded", "30.00", "99.90"),
            ("payment.refunded", "99.90", "0.00"),
        ]
        assert provider.refunded(order) == ["20.00", "30.00", "99.90"]
        made = payments.list_refunds(payment_id, actor=ADMIN)["items"]
        assert [(each["amount"], each["reason"]) for each in made] == [
            ("99.90", None),
            ("30.00", "a complaint"),
            ("20.00", "a complaint"),
        ]
        assert checks(servers) == SOUND

    def test_a_cancellation_and_then_a_refund(self, payments, bus, captured, provider, rows, servers):
        order, payment_id = captured()
        with provider.held():
            bus.publish(cancelled(order))
            bus.publish(cancelled(order))
            eventually(lambda: provider.is_asked(Operation.REFUND))
            for amount in (None, "1.00"):
                with pytest.raises(InvalidState, match="cancelled"):
                    refund(payments, payment_id, amount)
        bus.wait_for("payment.refunded", order.order_id)
        eventually(lambda: is_settled(rows))
        assert said(bus, order) == [("payment.refunded", "149.90", "0.00")]
        assert provider.refunded(order) == ["149.90"]
        assert checks(servers) == SOUND

    def test_a_cancellation_after_refunds_gives_back_the_rest(self, payments, bus, captured, provider, servers):
        order, payment_id = captured()
        refund(payments, payment_id, "100.00")
        bus.wait_for("payment.partially_refunded", order.order_id)
        bus.publish(cancelled(order))
        bus.wait_for("payment.refunded", order.order_id)
        bus.publish(confirmed(order))
        assert provider.refunded(order) == ["100.00", "49.90"]
        assert checks(servers) == SOUND

    def test_a_cancellation_after_a_full_refund_changes_nothing(self, payments, bus, captured, provider, rows):
        order, payment_id = captured()
        with provider.held():
            refund(payments, payment_id)
            bus.publish(cancelled(order))
            eventually(lambda: has_handled(cancelled(order)))
        bus.wait_for("payment.refunded", order.order_id)
        bus.publish(cancelled(order))
        eventually(lambda: has_handled(cancelled(order), 2) and is_settled(rows))
        assert said(bus, order) == [("payment.refunded", "149.90", "0.00")]
        assert provider.refunded(order) == ["149.90"]

    @pytest.mark.parametrize("first", ["refund", "cancellation"])
    def test_in_two_concurrent_transactions(self, payments, captured, provider, bus, rows, first):
        """The transaction of the first is kept open while the second one begins."""
        order, payment_id = captured()
        steps = {"refund": lambda session: request(session, payment_id), "cancellation": lambda s: cancel(s, order)}
        second = next(name for name in steps if name != first)
        with provider.held():
            began = eventlet.Event()
            one = eventlet.spawn(in_transaction, steps[first], began, hold=0.3)
            began.wait()
            two = eventlet.spawn(in_transaction, steps[second])
            one.wait()
            if first == "cancellation":
                with pytest.raises(InvalidState):
                    two.wait()
            else:
                two.wait()
        expected = ["40.00", "109.90"] if first == "refund" else ["149.90"]
        eventually(lambda: provider.refunded(order) == expected)
        bus.wait_for("payment.refunded", order.order_id)
        eventually(lambda: is_settled(rows))


def has_handled(event, messages=1):
    with database("payments").connect() as connection:
        handled = text("SELECT count(*) FROM inbox WHERE handler = :handler")
        return connection.scalar(handled, {"handler": handler_name(type(event))}) == messages


def request(session, payment_id):
    wanted = RefundPayment(amount="40.00", reason="a complaint")
    cause = StoredCause(new_id(), "request", "trace")
    refunds.request_refund(session, payment_id, wanted, OPERATOR, cause)


def cancel(session, order):
    use_cases.apply_order_events(session, [Received(cancelled(order), new_id(), "request", "trace")])


def in_transaction(step, began=None, hold=0.0):
    with sessionmaker(database("payments")).begin() as session:
        step(session)
        if began:
            began.send()
        eventlet.sleep(hold)


class TestAttempts:
    def test_every_call_of_the_provider_is_listed(self, payments, bus, captured, provider, rows):
        order, payment_id = captured("pm_refund_fails_2")
        refunds_asked = [refund(payments, payment_id, amount)["id"] for amount in ("10.00", "20.00")]
        eventually(lambda: is_settled(rows))
        assert provider.refunded(order) == ["10.00", "20.00"]
        found = payments.list_attempts(payment_id, actor=ADMIN)["items"][::-1]
        assert [(each["operation"], each["outcome"], each["refund_id"]) for each in found] == [
            ("authorise", "APPROVED", None),
            ("capture", "CAPTURED", None),
            *[
                ("refund", outcome, refund_id)
                for refund_id in refunds_asked
                for outcome in ("UNAVAILABLE", "UNAVAILABLE", "REFUNDED")
            ],
        ]
        assert [each["attempt"] for each in found[-3:]] == [1, 2, 3]
        assert found[-3]["detail"] == "error 1 of 2"
        assert all(0 <= each["duration_ms"] < 60_000 for each in found)
        assert [each["at"] for each in found] == sorted(each["at"] for each in found)
        page = payments.list_attempts(payment_id, limit=3, actor=ADMIN)
        assert page["items"] == found[:-4:-1]
        assert said(bus, order)[-1] == ("payment.partially_refunded", "20.00", "119.90")

    def test_a_lost_response_does_not_refund_twice(self, payments, captured, provider, rows):
        order, payment_id = captured("pm_answer_lost")
        refund(payments, payment_id, "10.00")
        eventually(lambda: is_settled(rows))
        assert provider.refunded(order) == ["10.00"]
        latest = payments.list_attempts(payment_id, limit=2, actor=ADMIN)["items"]
        assert [each["outcome"] for each in latest] == ["REFUNDED", "UNKNOWN"]

    def test_a_declined_payment_says_why(self, payments, bus):
        order = created("pm_declined")
        bus.publish(order)
        [event] = bus.wait_for("payment.failed", order.order_id)
        [attempt] = payments.list_attempts(str(event.payment_id), actor=ADMIN)["items"]
        assert (attempt["outcome"], attempt["detail"]) == ("DECLINED", "the card was declined")

    def test_of_many_failures_the_latest_are_kept(self, payments, bus, monkeypatch):
        monkeypatch.setattr(attempts, "MAX_FAILED", 2)
        order = created("pm_error_5")
        bus.publish(order)
        [event] = bus.wait_for("payment.authorized", order.order_id)
        kept = payments.list_attempts(str(event.payment_id), actor=ADMIN)["items"]
        assert [(each["attempt"], each["outcome"]) for each in kept] == [
            (6, "APPROVED"),
            (5, "UNAVAILABLE"),
            (4, "UNAVAILABLE"),
        ]

    def test_an_attempt_that_cannot_be_kept_is_repeated_all_the_same(self, payments, bus, monkeypatch, rows):
        monkeypatch.setattr(attempts, "_outcome_of", lambda _: None)  # the column is not nullable
        order = created("pm_error_2")
        bus.publish(order)
        bus.wait_for("payment.authorized", order.order_id)
        assert [tuple(row) for row in rows("SELECT attempt, outcome FROM provider_attempts")] == [(3, "APPROVED")]


class TestRefusals:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch):
        monkeypatch.setattr(refunds, "MOST_REFUSALS", 3)

    def test_a_refund_that_is_refused_again_and_again_is_given_up(self, payments, captured, provider, rows, servers):
        order, payment_id = captured()
        provider.refuses = lambda call: call.amount == Decimal("50.00")
        refused = refund(payments, payment_id, "50.00")
        made = refund(payments, payment_id, "20.00")
        eventually(lambda: is_settled(rows))
        by_id = {each["id"]: each["status"] for each in payments.list_refunds(payment_id, actor=ADMIN)["items"]}
        assert by_id == {refused["id"]: "FAILED", made["id"]: "SUCCEEDED"}
        attempts = payments.list_attempts(payment_id, actor=ADMIN)["items"]
        told = [each["detail"] for each in attempts if each["refund_id"] == refused["id"]]
        assert told == ["the refund is given up: not this one", "not this one", "not this one"]
        assert {each["outcome"] for each in attempts if each["refund_id"] == refused["id"]} == {"REFUSED"}
        assert payments.get_payment(payment_id)["status"] == "PARTIALLY_REFUNDED"
        assert checks(servers) == SOUND
        provider.refuses = lambda _: False
        assert refund(payments, payment_id)["amount"] == "129.90"
        eventually(lambda: provider.refunded(order) == ["20.00", "129.90"])

    def test_a_cancellation_then_gives_back_everything(self, payments, bus, captured, provider, rows, servers):
        order, payment_id = captured()
        provider.refuses = lambda call: call.refund_id is not None
        with provider.held():
            refund(payments, payment_id, "50.00")
            bus.publish(cancelled(order))
            eventually(lambda: rows("SELECT FROM payments WHERE cancel_requested"))
        [event] = bus.wait_for("payment.refunded", order.order_id)
        assert event.amount == TOTAL
        assert provider.refunded(order) == ["149.90"]
        eventually(lambda: is_settled(rows))
        assert checks(servers) == SOUND

    def test_the_refund_of_a_cancelled_order_is_never_given_up(self, bus, captured, provider, rows, servers):
        order, _ = captured()
        refusals = iter(range(6))
        provider.refuses = lambda call: call.operation is Operation.REFUND and next(refusals, None) is not None
        bus.publish(cancelled(order))
        bus.wait_for("payment.refunded", order.order_id)
        assert provider.refunded(order) == ["149.90"]
        assert len(rows("SELECT FROM provider_attempts WHERE outcome = 'REFUSED'")) == 6
        assert checks(servers) == SOUND

    def test_an_outage_is_no_refusal(self, payments, captured, provider, rows):
        order, payment_id = captured("pm_refund_fails_6")
        refund(payments, payment_id, "50.00")
        eventually(lambda: is_settled(rows))
        assert provider.refunded(order) == ["50.00"]

    def test_while_the_payment_is_locked_it_waits_for_another_refusal(self, payments, captured, provider, rows):
        _, payment_id = captured()
        provider.refuses = lambda call: call.refund_id is not None
        with database("payments").begin() as other:
            refund(payments, payment_id, "50.00")
            other.execute(text("SELECT FROM payments FOR UPDATE"))
            eventually(lambda: len(rows("SELECT FROM provider_attempts WHERE outcome = 'REFUSED'")) > 3)
            assert rows("SELECT FROM refunds WHERE status = 'FAILED'") == []
        eventually(lambda: rows("SELECT FROM refunds WHERE status = 'FAILED'"))


def test_a_refund_whose_work_item_is_lost_is_found(payments, captured, provider, rows):
    """The previous version of the service deletes the work items of such payments during an upgrade."""
    order, payment_id = captured()
    with provider.held():
        refund(payments, payment_id, "10.00")
        eventually(lambda: provider.is_asked(Operation.REFUND))
        rows("DELETE FROM work_items")
    eventually(lambda: provider.refunded(order) == ["10.00"])
    assert rows("SELECT refunded_amount FROM payments") == [(0,)]
    in_transaction(use_cases.adopt_payments)
    eventually(lambda: is_settled(rows))
    assert provider.refunded(order) == ["10.00"]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE refunds SET amount = amount - 1", {"refunds_sum"}),
        ("UPDATE payments SET refunded_amount = 49, refund_requested_amount = 49", {"refunds_sum"}),
        ("UPDATE payments SET status = 'REFUNDED'", {"refunds_within_capture"}),
        ("UPDATE payments SET status = 'CAPTURED'", {"refunds_within_capture"}),
        ("UPDATE payments SET status = 'VOIDED'", {"refunds_within_capture"}),
        ("UPDATE payments SET refunded_amount = 0, refund_requested_amount = 0", {*SOUND}),
    ],
)
def test_the_audit_finds_what_does_not_add_up(payments, bus, captured, rows, servers, change, broken):
    order, payment_id = captured()
    refund(payments, payment_id, "50.00")
    bus.wait_for("payment.partially_refunded", order.order_id)
    rows(change)
    assert checks(servers) == {name: int(name in broken) for name in SOUND}


def test_the_database_refuses_refunds_above_what_was_captured(payments, captured, rows):
    captured()
    with pytest.raises(Exception, match="refunds_within_amount"):
        rows("UPDATE payments SET refund_requested_amount = 149.91")
