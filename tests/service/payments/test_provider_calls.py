"""The calls of the payment provider: slow, hanging, failing, locked or lost ones delay only their own payment."""

import importlib
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from decimal import Decimal

import eventlet
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from nameko import config
from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

from contracts.ids import new_id
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated
from extensions.storage import work_items_breaker, work_items_runner
from extensions.storage.work_items_recorder import Recorder
from extensions.storage.work_items_runner import WorkItems
from payments import queries, use_cases
from payments import service as payments_service
from payments.http_provider import HttpProvider
from payments.provider import Operation, OutcomeUnknown, ProviderRefuses, ProviderUnavailable, SimulatedProvider
from payments.service import PaymentsService, make_provider, read_limits
from payments.simulated_provider import MemoryLedger
from tests.support import database, eventually, owned_database

USER = new_id()
LIMIT = Decimal("10000.00")
QUICK = {"PAYMENT_PROVIDER_DEADLINE_SECONDS": 0.5, "PAYMENT_RETRY_SECONDS": 0.05, "PAYMENT_MAX_RETRY_SECONDS": 0.2}
PATIENT = QUICK | {"PAYMENT_PROVIDER_DEADLINE_SECONDS": 60}


def created(method="pm_ok", amount="149.90"):
    return OrderCreated(
        order_id=new_id(),
        user_id=USER,
        total_amount=Decimal(amount),
        currency="TRY",
        items=(),
        payment_method=method,
    )


def confirmed(order):
    return OrderConfirmed(
        order_id=order.order_id, user_id=order.user_id, total_amount=order.total_amount, currency=order.currency
    )


def cancelled(order):
    return OrderCancelled(order_id=order.order_id, user_id=order.user_id, reason=CancelReason.TIMEOUT)


class Scripted(SimulatedProvider):
    """The simulated provider, with a record of its calls and a function that a test may put before each."""

    def __init__(self):
        super().__init__(LIMIT, MemoryLedger())
        self.asked = []
        self.before = lambda _: None

    def ask(self, call):
        self.asked.append(call.key)
        self.before(call)
        return super().ask(call)

    def count(self, order, operation=Operation.AUTHORISE):
        return self.asked.count(f"{order.order_id}:{operation}")


@pytest.fixture
def provider():
    return Scripted()


@pytest.fixture
def start(run_service):
    """Start payments with these settings: `start(provider, QUICK)`. Returns the container."""

    def run(provider, settings=QUICK):
        with config.patch(settings):
            return run_service(PaymentsService, provider=provider)

    return run


@pytest.fixture
def rows(servers):
    """Returns a function that reads or changes the database of payments."""
    engine = database("payments")

    def run(statement, **parameters):
        with engine.begin() as connection:
            found = connection.execute(text(statement), parameters)
            return found.all() if found.returns_rows else []

    return run


@contextmanager
def locked(statement, **parameters):
    """Hold the locks of a statement in another session."""
    with database("payments").connect() as connection:
        connection.execute(text(statement), parameters)
        yield
        connection.rollback()


@pytest.fixture
def server():
    """The URL of the simulated provider in a process of its own."""
    command = [sys.executable, "-m", "payments.simulated_provider", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[-1]
        process.kill()


def payment_of(rows, order):
    [found] = rows("SELECT id, status FROM payments WHERE order_id = :order", order=order.order_id)
    return found


def runner_of(container):
    return next(entrypoint for entrypoint in container.entrypoints if isinstance(entrypoint, WorkItems))


class TestOnePaymentDelaysNoOther:
    def test_a_locked_row(self, start, bus, rows, provider, monkeypatch):
        """Another session holds the row of a PENDING payment."""
        failed = []
        monkeypatch.setattr(Recorder, "_after_failure", lambda _, batch, error: failed.append((len(batch), error)))
        door = eventlet.Event()
        provider.before = lambda _: door.wait()
        start(provider, PATIENT)
        stuck = created()
        bus.publish(stuck)
        eventually(lambda: provider.asked)
        with locked("SELECT FROM payments WHERE order_id = :order FOR UPDATE", order=stuck.order_id):
            door.send()
            others = [created() for _ in range(5)]
            for order in others:
                bus.publish(order)
            for order in others:
                bus.wait_for("payment.authorized", order.order_id)
                bus.publish(confirmed(order))
            bus.wait_for("payment.captured", count=5)
            assert payment_of(rows, stuck).status == "PENDING"
        bus.wait_for("payment.authorized", stuck.order_id)
        assert failed == [], "a transaction has waited for the row"
        assert provider.count(stuck) == 1, "the outcome was recorded later, without another call"

    def test_a_locked_work_item(self, start, bus, rows, provider):
        door = eventlet.Event()
        provider.before = lambda _: door.wait()
        start(provider, PATIENT)
        stuck = created()
        bus.publish(stuck)
        eventually(lambda: provider.asked)
        with locked("SELECT FROM work_items FOR UPDATE"):
            door.send()
            bus.publish(other := created())
            bus.wait_for("payment.authorized", other.order_id)
            assert payment_of(rows, stuck).status == "PENDING"
        bus.wait_for("payment.authorized", stuck.order_id)

    def test_a_locked_work_item_of_a_call_that_failed(self, start, bus, rows, provider):
        """The next attempt comes soon after the lock has ended, and not only after the lease of 64 s."""
        door, failures = eventlet.Event(), []

        def fail_once(_):
            door.wait()
            if not failures:
                failures.append(True)
                raise ProviderUnavailable

        provider.before = fail_once
        start(provider, PATIENT)
        bus.publish(stuck := created())
        eventually(lambda: provider.asked)
        began = time.monotonic()
        with locked("SELECT FROM work_items FOR UPDATE"):
            door.send()
            bus.publish(other := created())
            bus.wait_for("payment.authorized", other.order_id)
        bus.wait_for("payment.authorized", stuck.order_id)
        assert time.monotonic() - began < 60

    def test_payments_that_hang(self, start, bus, rows, provider):
        start(provider, QUICK | {"PAYMENT_PROVIDER_CALLS": 2})
        stuck = [created("pm_hangs") for _ in range(3)]
        for order in stuck:
            bus.publish(order)
        eventually(lambda: all(provider.count(order) >= 2 for order in stuck))
        others = [created() for _ in range(20)]
        for order in others:
            bus.publish(order)
        for order in others:
            bus.wait_for("payment.authorized", order.order_id)
        for order in stuck:  # their orders time out
            bus.publish(cancelled(order))
            bus.wait_for("payment.voided", order.order_id)
        eventually(lambda: rows("SELECT FROM work_items") == [])

    def test_payments_that_take_long(self, start, bus, provider, monkeypatch):
        """They have more time than the test, and are more than there are places for first attempts."""
        monkeypatch.setattr(payments_service, "PROMPT_SECONDS", 0.2)
        slow = [created() for _ in range(4)]
        ids, door = {str(order.order_id) for order in slow}, eventlet.Event()
        provider.before = lambda call: door.wait() if call.key.partition(":")[0] in ids else None
        start(provider, PATIENT | {"PAYMENT_PROVIDER_CALLS": 2})
        for order in slow:
            bus.publish(order)
        eventually(lambda: all(provider.count(order) for order in slow))
        others = [created() for _ in range(20)]
        for order in others:
            bus.publish(order)
        for order in others:
            bus.wait_for("payment.authorized", order.order_id)
        door.send()
        for order in slow:
            bus.wait_for("payment.authorized", order.order_id)
            assert provider.count(order) == 1, "a slow call was repeated"

    def test_further_attempts_that_take_long(self, start, bus, provider, monkeypatch):
        """They hold the places for further attempts; a payment whose first attempt has failed needs one, too."""
        monkeypatch.setattr(payments_service, "PROMPT_SECONDS", 0.2)
        slow, other, door = [created() for _ in range(3)], created(), eventlet.Event()
        ids = {str(order.order_id) for order in slow}

        def fail_once(call):
            if provider.asked.count(call.key) == 1:
                raise ProviderUnavailable
            if call.key.partition(":")[0] in ids:
                door.wait()

        provider.before = fail_once
        start(provider, PATIENT | {"PAYMENT_PROVIDER_CALLS": 4})
        for order in slow:
            bus.publish(order)
        eventually(lambda: all(provider.count(order) == 2 for order in slow))
        bus.publish(other)
        bus.wait_for("payment.authorized", other.order_id)
        door.send()
        for order in slow:
            bus.wait_for("payment.authorized", order.order_id)

    def test_slow_calls_are_bounded(self, start, bus, provider, monkeypatch):
        monkeypatch.setattr(payments_service, "PROMPT_SECONDS", 0.05)
        door = eventlet.Event()
        provider.before = lambda _: door.wait()
        container = start(provider, PATIENT | {"PAYMENT_PROVIDER_CALLS": 1})
        for order in (orders := [created() for _ in range(8)]):
            bus.publish(order)
        lane, most = runner_of(container).lanes["authorisation"], 1 + work_items_runner.SLOW_TO_PROMPT

        def are_slow():
            began = [each.began for each in lane.executing.values()]
            return len(began) == most and time.monotonic() - max(began) > payments_service.PROMPT_SECONDS

        eventually(are_slow)
        assert lane._free_places()[0] == 0
        door.send()
        for order in orders:
            bus.wait_for("payment.authorized", order.order_id)

    def test_a_work_item_that_cannot_be_prepared(self, start, bus, rows, provider):
        start(provider, PATIENT)
        rows("INSERT INTO work_items (key, kind) VALUES ('no id', 'authorisation')")
        bus.publish(other := created())
        bus.wait_for("payment.authorized", other.order_id)
        [(error,)] = eventually(lambda: rows("SELECT last_error FROM work_items WHERE last_error IS NOT NULL"))
        assert "ValueError" in error

    def test_a_work_item_that_no_statement_can_prepare(self, start, bus, rows, provider, monkeypatch):
        bad, calls_of = created(), queries.calls_of

        def fail(session, payment_ids):
            of_bad = rows("SELECT id FROM payments WHERE order_id = :id", id=bad.order_id)
            if any(payment.id in payment_ids for payment in of_bad):
                session.execute(text("SELECT 1 / 0"))
            return calls_of(session, payment_ids)

        monkeypatch.setattr(queries, "calls_of", fail)
        start(provider, PATIENT)
        bus.publish(bad)
        for _ in range(3):
            bus.publish(other := created())
            bus.wait_for("payment.authorized", other.order_id)
        [(error,)] = eventually(lambda: rows("SELECT last_error FROM work_items WHERE last_error IS NOT NULL"))
        assert "division by zero" in error

    def test_an_outcome_that_cannot_be_recorded(self, start, bus, rows, provider, monkeypatch):
        bad, record, healed = created(), use_cases.record_outcomes, []

        def refuse(session, outcomes, publish):
            if payment_of(rows, bad).id in outcomes and not healed:
                raise ValueError("a bug")
            return record(session, outcomes, publish)

        monkeypatch.setattr(use_cases, "record_outcomes", refuse)
        start(provider)
        bus.publish(bad)
        others = [created() for _ in range(5)]
        for order in others:
            bus.publish(order)
        for order in others:
            bus.wait_for("payment.authorized", order.order_id)
        eventually(lambda: rows("SELECT last_error FROM work_items") == [("not recorded: ValueError: a bug",)])
        healed.append(True)
        bus.wait_for("payment.authorized", bad.order_id)


class TestEveryMethod:
    """The methods of contract section 4, with both implementations of the provider."""

    @pytest.fixture(params=["simulated", "http"])
    def settings(self, request):
        if request.param == "simulated":
            return {"PAYMENT_PROVIDER": "simulated"}
        return {"PAYMENT_PROVIDER": "http", "PAYMENT_PROVIDER_URL": request.getfixturevalue("server")}

    def test_has_the_outcome_of_the_contract(self, settings, run_service, bus, rows):
        with config.patch(QUICK | settings):
            run_service(PaymentsService)
        good = [
            "pm_ok",
            "pm_slow_30",
            "pm_answer_lost",
            "pm_duplicate_answer",
            "pm_error_3",
            "pm_capture_fails_3",
            "pm_refund_fails_3",
            "pm_slow_900",  # longer than the deadline: the outcome is asked for again
        ]
        orders = {method: created(method) for method in (*good, "pm_declined", "pm_insufficient_funds", "pm_hangs")}
        for order in orders.values():
            bus.publish(order)
        for method, reason in (
            ("pm_declined", "the card was declined"),
            ("pm_insufficient_funds", "insufficient funds"),
        ):
            [failed] = bus.wait_for("payment.failed", orders[method].order_id)
            assert failed.reason == reason
        for event, next_event in (
            ("payment.authorized", confirmed),
            ("payment.captured", cancelled),
            ("payment.refunded", cancelled),
        ):
            for method in good:
                bus.wait_for(event, orders[method].order_id)
                bus.publish(next_event(orders[method]))
        bus.publish(cancelled(orders["pm_hangs"]))
        bus.wait_for("payment.voided", orders["pm_hangs"].order_id)
        said = Counter((event.event_type, event.order_id) for event in bus.events() if event.producer == "payments")
        assert set(said.values()) == {1}
        assert len(said) == 3 * len(good) + 3
        eventually(lambda: rows("SELECT FROM work_items") == [])

    def test_refunds_in_parts(self, settings, run_service, caller, bus, rows):
        with config.patch(QUICK | settings):
            run_service(PaymentsService)
        orders = [created(method) for method in ("pm_ok", "pm_answer_lost", "pm_duplicate_answer", "pm_refund_fails_2")]
        for order in orders:
            bus.publish(order)
            [event] = bus.wait_for("payment.authorized", order.order_id)
            bus.publish(confirmed(order))
            bus.wait_for("payment.captured", order.order_id)
            for amount in ("100.00", "40.00"):
                caller.payments.refund_payment(str(event.payment_id), amount, "a complaint")
        for order in orders:
            bus.wait_for("payment.partially_refunded", order.order_id, count=2)
            bus.publish(cancelled(order))
            [event] = bus.wait_for("payment.refunded", order.order_id)
            assert event.amount == Decimal("9.90")
        made = rows("SELECT amount, count(*) FROM refunds WHERE status = 'SUCCEEDED' GROUP BY amount ORDER BY amount")
        assert made == [(Decimal(amount), len(orders)) for amount in ("9.90", "40.00", "100.00")]
        eventually(lambda: rows("SELECT FROM work_items") == [])

    def test_the_settings_choose_the_provider(self, settings):
        with config.patch(settings):
            kinds = {"simulated": SimulatedProvider, "http": HttpProvider}
            assert type(make_provider(config)) is kinds[settings["PAYMENT_PROVIDER"]]

    def test_wrong_settings_are_refused(self):
        with config.patch({"PAYMENT_PROVIDER": "stripe"}), pytest.raises(Exception, match="PAYMENT_PROVIDER"):
            make_provider(config)
        with pytest.raises(ValueError, match="positive"):
            read_limits({"PAYMENT_PROVIDER_CALLS": 0})


class TestLeases:
    @pytest.fixture(autouse=True)
    def _short_margin(self, monkeypatch):
        monkeypatch.setattr(work_items_runner, "LEASE_MARGIN_SECONDS", 0.5)

    def test_another_process_takes_over_after_a_crash_between_outcome_and_record(self, start, bus, rows, provider):
        first = start(provider)
        died = eventlet.Event()

        def die(call):
            if not died.ready():
                runner_of(first).recorder.add = lambda _: died.ready() or died.send()

        provider.before = die
        order = created()
        bus.publish(order)
        died.wait()
        first.kill()
        assert payment_of(rows, order).status == "PENDING"
        start(provider)
        [authorised] = bus.wait_for("payment.authorized", order.order_id)
        assert provider.count(order) == 2
        assert authorised.transaction_reference
        bus.publish(confirmed(order))
        bus.wait_for("payment.captured", order.order_id)

    def test_the_result_of_a_lost_lease_changes_nothing(self, start, bus, rows):
        slow, quick = Scripted(), Scripted()
        door = eventlet.Event()
        slow.before = lambda _: door.wait()
        slow._ledger = quick._ledger
        first = start(slow, PATIENT)
        order = created()
        bus.publish(order)
        eventually(lambda: slow.asked)
        runner_of(first).stopping = True  # it claims nothing more, as a suspended process
        start(quick, PATIENT)
        rows("UPDATE work_items SET next_attempt_at = clock_timestamp()")  # the lease ends
        bus.wait_for("payment.authorized", order.order_id)
        bus.publish(confirmed(order))
        bus.wait_for("payment.captured", order.order_id)
        door.send()
        eventually(lambda: not runner_of(first).lanes["authorisation"].executing)
        eventually(lambda: not runner_of(first).recorder._has_work())
        assert payment_of(rows, order).status == "CAPTURED"
        said = [event.event_type for event in bus.events() if event.producer == "payments"]
        assert said == ["payment.authorized", "payment.captured"]

    def test_a_stop_gives_the_leases_back(self, start, bus, rows, provider, monkeypatch):
        monkeypatch.setattr(work_items_runner, "STOP_SECONDS", 0.1)
        first = start(provider, PATIENT)
        order = created("pm_hangs")
        bus.publish(order)
        eventually(lambda: provider.asked)
        first.stop()
        assert rows("SELECT attempts, lease, next_attempt_at <= clock_timestamp() FROM work_items") == [(0, None, True)]

    def test_due_times_from_before_the_clock_was_set_back_count_as_due(self, start, bus, rows, provider):
        start(provider)
        order = created("pm_error_1")
        bus.publish(order)
        bus.wait_for("payment.authorized", order.order_id)
        rows(
            "INSERT INTO work_items (key, kind, next_attempt_at) SELECT id, 'settlement', now() + interval '1 day'"
            " FROM payments"
        )
        eventually(lambda: rows("SELECT FROM work_items") == [])


class TestTheCircuitBreaker:
    def test_opens_after_many_failures_and_probes(self, start, bus, rows, provider, monkeypatch):
        monkeypatch.setattr(work_items_breaker, "FIRST_PROBE_SECONDS", 0.3)
        monkeypatch.setattr(work_items_breaker, "LONGEST_PROBE_SECONDS", 0.3)
        broken = [True]

        def fail(call):
            if broken:
                raise ProviderUnavailable("down")

        provider.before = fail
        breaker = runner_of(start(provider, QUICK)).lanes["authorisation"].breaker
        orders = [created() for _ in range(40)]
        for order in orders:
            bus.publish(order)
        eventually(lambda: breaker.is_open)
        eventually(lambda: rows("SELECT count(*) FROM work_items") == [(40,)])
        asked, began = len(provider.asked), time.monotonic()
        eventually(lambda: len(provider.asked) >= asked + 3)  # probes
        assert len(provider.asked) - asked <= 2 * (time.monotonic() - began) / 0.3 + 40  # those that ran, and two lanes
        assert breaker.is_open
        broken.clear()
        bus.wait_for("payment.authorized", count=40)
        assert not breaker.is_open

    def test_captures_that_fail_delay_no_authorisation(self, start, bus, provider, monkeypatch):
        monkeypatch.setattr(work_items_breaker, "FIRST_PROBE_SECONDS", 600.0)

        def fail(call):
            if call.operation is Operation.CAPTURE:
                raise ProviderUnavailable("down")

        provider.before = fail
        lanes = runner_of(start(provider, QUICK)).lanes
        orders = [created() for _ in range(20)]
        for order in orders:
            bus.publish(order)
        for order in orders:
            bus.wait_for("payment.authorized", order.order_id)
            bus.publish(confirmed(order))
        eventually(lambda: lanes["settlement"].breaker.is_open)
        bus.publish(other := created())
        bus.wait_for("payment.authorized", other.order_id)
        assert not lanes["authorisation"].breaker.is_open

    def test_a_refusal_is_no_outage(self, start, bus, rows, provider):
        def refuse(call):
            if call.operation is Operation.CAPTURE:
                raise ProviderRefuses("contradiction")

        provider.before = refuse
        breaker = runner_of(start(provider)).lanes["settlement"].breaker
        orders = [created() for _ in range(15)]
        for order in orders:
            bus.publish(order)
            bus.wait_for("payment.authorized", order.order_id)
            bus.publish(confirmed(order))
        eventually(lambda: all(provider.count(order, Operation.CAPTURE) >= 2 for order in orders))
        assert not breaker.is_open


class TestOperators:
    def test_see_what_fails(self, start, bus, caller, provider):
        def fail(call):
            if call.operation is Operation.CAPTURE:
                raise OutcomeUnknown("connection reset")

        provider.before = fail
        runner = runner_of(start(provider))
        order = created()
        bus.publish(order)
        bus.wait_for("payment.authorized", order.order_id)
        bus.publish(confirmed(order))

        def failing():
            return [call for call in caller.payments.list_provider_calls()["items"] if call["attempts"] > 4]

        [call] = eventually(failing)
        assert call["kind"] == "settlement"
        assert call["last_error"] == "OutcomeUnknown: connection reset"
        with sessionmaker(database("payments"))() as session:
            runner.instruments.backlog = work_items_runner.work_items.backlog(
                session, runner.storage.table("work_items")
            )
        value = runner.metrics.registry.get_sample_value
        assert value("suite_work_items_failing", {"kind": "settlement"}) == 1
        assert value("suite_work_items", {"kind": "settlement"}) == 1
        assert value("suite_work_items", {"kind": "authorisation"}) == 0
        assert value("suite_work_attempt_seconds_count", {"kind": "settlement", "outcome": "failed"}) >= 4

    def test_list_the_calls_in_pages(self, start, bus, rows, caller, provider):
        def fail(_call):
            raise ProviderUnavailable("down")

        provider.before = fail
        start(provider)
        for _ in range(3):
            bus.publish(created())
        eventually(lambda: rows("SELECT count(*) FROM work_items") == [(3,)])
        page = caller.payments.list_provider_calls(limit=2)
        rest = caller.payments.list_provider_calls(limit=2, cursor=page["next_cursor"])
        listed = [each["payment_id"] for each in page["items"] + rest["items"]]
        assert listed == sorted(listed, reverse=True)
        assert (len(listed), rest["next_cursor"]) == (3, None)


def test_a_commit_wakes_the_calls(start, bus, provider, monkeypatch):
    monkeypatch.setattr(work_items_runner, "POLL_SECONDS", 600)
    start(provider)
    order = created()
    bus.publish(order)
    bus.wait_for("payment.authorized", order.order_id)
    bus.publish(confirmed(order))
    bus.wait_for("payment.captured", order.order_id)


class TestAnUpgrade:
    """Rows that the previous version stored."""

    INSERT = (
        "INSERT INTO payments (id, order_id, user_id, amount, currency, status, cancel_requested,"
        " transaction_reference, cause_message_id, cause_request_id, cause_traceparent)"
        " VALUES (:id, :order, :id, 1, 'TRY', :status, :cancelled, :reference, :id, 'r', 't')"
    )

    @staticmethod
    def row(status, *, cancelled=False, reference=None):
        return {"id": new_id(), "order": new_id(), "status": status, "cancelled": cancelled, "reference": reference}

    def test_gives_pending_payments_their_work_items(self, servers, monkeypatch):
        migration = importlib.import_module("payments.migrations.0004_work_items")
        monkeypatch.setattr(migration, "require_stopped", lambda *_: None)  # tests/service/test_upgrades.py
        old = [self.row("PENDING"), self.row("PENDING", cancelled=True), self.row("AUTHORIZED", reference="auth_1")]
        with owned_database("payments").connect() as connection:
            connection.execute(text("DELETE FROM payments"))
            with Operations.context(MigrationContext.configure(connection)):
                migration.downgrade()
                connection.execute(text(self.INSERT), old)
                migration.upgrade()
            items = connection.execute(text("SELECT key, kind, attempts FROM work_items ORDER BY key")).all()
            columns = connection.execute(text("SELECT DISTINCT payment_method, capture_requested FROM payments")).all()
            connection.rollback()
        assert items == [(str(old[0]["id"]), "authorisation", 0), (str(old[1]["id"]), "settlement", 0)]
        assert columns == [("pm_ok", False)]

    def test_adopts_what_the_previous_version_stores_meanwhile(self, start, bus, rows, provider):
        start(provider)
        # The service adopts payments at its start, and then every 30 s.
        ran = "SELECT 1 FROM timers WHERE name = 'adopt_payments' AND due_at > now() + interval '5 s'"
        eventually(lambda: rows(ran))
        pending, remembered = self.row("PENDING"), self.row("PENDING", cancelled=True)
        for row in (pending, remembered):
            rows(self.INSERT, **row)
        with sessionmaker(database("payments")).begin() as session:
            assert use_cases.adopt_payments(session) == 2
        bus.wait_for("payment.authorized", pending["order"])
        bus.wait_for("payment.voided", remembered["order"])
