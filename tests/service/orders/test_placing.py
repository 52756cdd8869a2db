"""Concurrent requests for orders share one transaction, and the result of each is independent of the others."""

import os
import socket
from contextlib import ExitStack, contextmanager
from unittest.mock import Mock

import eventlet
import pytest
import sqlalchemy
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from contracts.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InternalError,
    ServiceError,
    ServiceUnavailable,
    UpstreamTimeout,
    ValidationFailed,
)
from contracts.orders import PriceChanged, ProductUnavailable
from extensions.idempotency.batcher import BatcherProvider
from extensions.storage import engine as postgres
from orders.service import OrdersService
from tests.service.orders.test_service import ALICE, BOB, BOOK, GONE, PEN, line
from tests.support import TEST_TIMEOUT_SECONDS, Caller, database, eventually, owned_database

TRACES = [
    (f"request-{number}", f"00-4bf92f3577b34da6a3ce929d0e0e{number:04}-00f067aa0ba902b7-01") for number in range(6)
]


class Counter:
    """Orders and its batch queue: requests that arrive while a batch runs become the next batch."""

    def __init__(self, container):
        self.container = container
        self.batcher = next(each for each in container.dependencies if isinstance(each, BatcherProvider)).batcher

    @contextmanager
    def busy(self):
        """Keep one order waiting in its transaction while the block runs."""
        with closed():
            first = ask()
            eventually(lambda: stuck() == 1)
            yield first

    def queue(self, *calls):
        """Start calls, each after the previous one is queued; return their greenlets."""
        asked = []
        for call in calls:
            asked.append(ask(**call))
            eventually(lambda: len(self.batcher._waiting) == len(asked))
        return asked

    def serve(self, *calls):
        """Make calls that run as one batch, in this sequence; return the result of each."""
        with self.busy():
            asked = self.queue(*calls)
        return [one.wait() for one in asked]

    @contextmanager
    def serving(self, *calls):
        """Keep a batch of calls waiting in its transaction while the block runs; yield their greenlets."""
        with ExitStack() as stack:
            with self.busy() as first:
                asked = self.queue(*calls)
                lock = eventlet.spawn(stack.enter_context, closed())  # locked after the first order, before the others
                eventually(lambda: stuck() == 2)
            first.wait()
            lock.wait()
            eventually(lambda: not self.batcher._waiting and stuck() == 1)
            yield asked


@contextmanager
def closed():
    """Block writes to orders while the block runs."""
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("LOCK TABLE orders IN SHARE MODE"))
        yield


def stuck():
    """The number of transactions that wait for this lock."""
    return scalar("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass")


def cut():
    """Terminate the database connection of the waiting transaction."""
    waiting = "FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass"
    assert scalar(f"SELECT count(pg_terminate_backend(pid)) {waiting}") == 1


def scalar(statement):
    with database("orders").connect() as connection:
        return connection.scalar(sqlalchemy.text(statement))


def ask(items=None, actor=ALICE, key=None, trace=None, timeout=TEST_TIMEOUT_SECONDS):
    """Place an order in a greenlet, which returns the order or the error."""
    headers = dict(zip(("x-request-id", "traceparent"), trace, strict=True)) if trace else {}

    def call():
        try:
            return Caller(timeout, headers).orders.create_order(items or [line()], actor=actor, idempotency_key=key)
        except (ServiceError, OSError) as error:
            return error

    return eventlet.spawn(call)


def transactions():
    """The number of orders of each transaction, sorted."""
    with database("orders").connect() as connection:
        return sorted(connection.scalars(sqlalchemy.text("SELECT count(*) FROM orders GROUP BY xmin::text")))


def stored():
    """The number of orders, lines, timeline events and idempotency keys."""
    tables = ("orders", "order_items", "timeline", "idempotency_keys")
    return tuple(scalar(f"SELECT count(*) FROM {table}") for table in tables)


@pytest.fixture
def counter(run_service, monkeypatch):
    monkeypatch.setattr("extensions.idempotency.batcher.MAX_DELAY_SECONDS", TEST_TIMEOUT_SECONDS)
    patient = {"lock_timeout": "60s", "statement_timeout": "60s"}  # a test may hold the lock for long on a slow machine
    monkeypatch.setattr(postgres, "SESSION_SETTINGS", postgres.SESSION_SETTINGS | patient)
    monkeypatch.setattr(postgres, "RESPONSE_TIMEOUT_SECONDS", 2 * TEST_TIMEOUT_SECONDS)
    catalog = Mock()
    catalog.within.return_value = catalog
    catalog.catalog.get_products = lambda product_ids: {
        "items": [item for item in (PEN, BOOK, GONE) if item["id"] in product_ids]
    }
    return Counter(run_service(OrdersService, services=catalog))


@pytest.fixture
def poison(servers):
    """Make the database refuse order lines with a quantity of 13."""
    with owned_database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE order_items ADD CONSTRAINT poison CHECK (quantity <> 13)"))
    yield [line(quantity=13)]
    with owned_database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE order_items DROP CONSTRAINT poison"))


def test_concurrent_orders_share_one_transaction_and_keep_their_own_data(counter, caller, bus):
    calls = [
        {
            "items": [line(quantity=number), line(BOOK, 1)],
            "actor": (ALICE, BOB)[number % 2],
            "key": "k" * number or None,
        }
        for number in range(1, 6)
    ]
    answers = counter.serve({}, *calls)[1:]
    assert transactions() == [1, 6]
    for answer, call in zip(answers, calls, strict=True):
        assert answer["user_id"] == call["actor"]["user_id"]
        assert [item["quantity"] for item in answer["items"]] == [call["items"][0]["quantity"], 1]
        assert caller.orders.get_order(answer["id"], actor=call["actor"]) == answer
        (created,) = bus.wait_for("order.created", answer["id"])
        assert str(created.total_amount) == answer["total_amount"]
        timeline = caller.orders.get_timeline(answer["id"], actor=call["actor"])["items"]
        assert [(entry["event"], entry["data"]["order_id"]) for entry in timeline] == [("order.created", answer["id"])]
        again = caller.orders.create_order(call["items"], actor=call["actor"], idempotency_key=call["key"])
        assert again == answer
    assert stored() == (7, 12, 7, 5)


def test_each_event_has_the_trace_of_its_own_request(counter, bus):
    answers = counter.serve(*({"trace": trace} for trace in TRACES))
    for answer, (request_id, traceparent) in zip(answers, TRACES, strict=True):
        assert bus.wait_for("order.created", answer["id"])
        (message,) = [each for each in bus.messages if each.properties["correlation_id"] == answer["id"]]
        headers = message.properties["application_headers"]
        assert headers["x-request-id"] == request_id
        assert headers["traceparent"].split("-")[1] == traceparent.split("-")[1]
        assert "causation-id" not in headers


def test_a_refusal_is_the_stored_result_of_its_own_call_only(counter, caller):
    refused = {
        "gone": ([line(GONE)], ProductUnavailable),
        "changed": ([line(price_snapshot="1.00")], PriceChanged),
        "much": ([line(quantity=6000), line(quantity=6000)], ValidationFailed),
    }
    calls = [{"key": "a"}, *({"items": items, "key": key} for key, (items, _) in refused.items()), {"key": "b"}]
    first, *errors, last = counter.serve(*calls)
    assert [type(error) for error in errors] == [kind for _, kind in refused.values()]
    assert {error.replay_of for error in errors} == {None}
    assert transactions() == [1, 2]
    assert scalar("SELECT array_agg(key ORDER BY key) FROM idempotency_keys") == ["a", "b", "changed", "gone"]
    again = counter.serve(*calls)
    assert (again[0], again[-1]) == (first, last)
    assert [(type(error), str(error)) for error in again[1:-1]] == [(type(error), str(error)) for error in errors]
    assert [error.replay_of is not None for error in again[1:-1]] == [True, True, False]
    assert stored() == (4, 4, 4, 4)  # includes two orders without a key that kept the batch waiting


def test_a_repeated_refusal_names_the_first_refused_request(counter):
    calls = [{"items": [line(GONE)], "key": str(number), "trace": trace} for number, trace in enumerate(TRACES)]
    counter.serve(*calls)
    again = counter.serve(*({**call, "trace": None} for call in calls))
    assert [error.replay_of for error in again] == [request_id for request_id, _ in TRACES]


def test_the_second_of_two_concurrent_calls_with_one_key_finds_it_in_use(counter, caller):
    """The second call is refused immediately; it does not wait for the result of the first."""
    with counter.busy():
        asked = counter.queue({"key": "k"}, {"key": "k", "actor": BOB})
        second, another = ask(key="k").wait(), ask(key="k", items=[line(BOOK)]).wait()
    first, of_bob = (one.wait() for one in asked)
    assert [(type(error), error.retry_after) for error in (second, another)] == [(IdempotencyKeyInUse, 1)] * 2
    assert of_bob["id"] != first["id"]
    assert caller.orders.create_order([line()], actor=ALICE, idempotency_key="k") == first
    with pytest.raises(IdempotencyKeyReused):
        caller.orders.create_order([line(BOOK)], actor=ALICE, idempotency_key="k")
    assert transactions() == [1, 2]


def test_a_key_used_by_another_instance_affects_only_its_own_call(counter):
    lock = f"SELECT pg_advisory_xact_lock(hashtextextended('{ALICE['user_id']}\ncreate_order\nk', 0))"
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text(lock))
        refused, placed = counter.serve({"key": "k"}, {"key": "another"})
    assert isinstance(refused, IdempotencyKeyInUse)
    assert placed["status"] == "CREATED"


def test_a_key_with_a_running_transaction_is_in_use(counter):
    with counter.serving({"key": "k"}, {"key": "another"}) as asked:
        assert isinstance(ask(key="k").wait(), IdempotencyKeyInUse)
    assert [one.wait()["status"] for one in asked] == ["CREATED"] * 2


def test_an_invalid_key_affects_only_its_own_call(counter):
    refused, placed = counter.serve({"key": "two words"}, {"key": "one"})
    assert [error.field for error in refused.errors] == ["Idempotency-Key"]
    assert placed["status"] == "CREATED"


def test_fifty_concurrent_calls_with_one_key_place_one_order(counter):
    asked = [ask(key="k") for _ in range(50)]
    answers = [one.wait() for one in asked]
    orders = {answer["id"] for answer in answers if isinstance(answer, dict)}
    assert {type(answer) for answer in answers} <= {dict, IdempotencyKeyInUse}
    assert len(orders) == 1
    assert stored() == (1, 1, 1, 1)


def test_an_order_refused_by_the_database_does_not_affect_others(counter, poison, caller):
    calls = [{"key": "a"}, {"items": poison, "key": "poison"}, {"items": [line(GONE)], "key": "gone"}, {"key": "b"}]
    first, broken, gone, last = counter.serve(*calls)
    assert [type(error) for error in (broken, gone)] == [InternalError, ProductUnavailable]
    assert caller.orders.get_order(first["id"]) == first
    assert caller.orders.get_order(last["id"]) == last
    assert transactions() == [1, 1, 1]
    assert scalar("SELECT array_agg(key ORDER BY key) FROM idempotency_keys") == ["a", "b", "gone"]


def test_a_key_stored_concurrently_affects_only_its_own_call(counter):
    """Lock and look-up are one statement, whose snapshot of the table is older than its lock."""
    row = (
        "INSERT INTO idempotency_keys (actor, method, key, fingerprint, answer)"
        f" VALUES ('{ALICE['user_id']}', 'create_order', 'k', 'another', '{{}}')"
    )
    with counter.serving({"key": "k"}, {"key": "another"}) as asked, database("orders").begin() as connection:
        connection.execute(sqlalchemy.text(row))
    reused, placed = (one.wait() for one in asked)
    assert isinstance(reused, IdempotencyKeyReused)
    assert placed["status"] == "CREATED"
    assert stored() == (2, 2, 2, 2)


def test_a_connection_lost_during_a_batch_stores_none_of_its_orders(counter, bus):
    with counter.serving(*({"key": str(number)} for number in range(4))) as asked:
        cut()
        answers = [one.wait() for one in asked]
    assert [(type(error), error.status) for error in answers] == [(ServiceUnavailable, 503)] * 4
    assert stored() == (1, 1, 1, 0)
    again = counter.serve(*({"key": str(number)} for number in range(4)))
    assert len({order["id"] for order in again}) == 4
    assert stored() == (6, 6, 6, 4)
    assert len(bus.wait_for("order.created", count=6)) == 6


def test_one_by_one_retries_stop_at_the_first_lost_connection(counter, poison):
    with ExitStack() as stack:
        with counter.serving({"key": "a"}, {"items": poison}, {"key": "b"}) as asked:
            lock = eventlet.spawn(stack.enter_context, closed())
            eventually(lambda: stuck() == 2)
        lock.wait()  # the batch has failed
        eventually(lambda: stuck() == 1)
        cut()
    assert [type(one.wait()) for one in asked] == [ServiceUnavailable] * 3
    assert stored() == (1, 1, 1, 0)


LOST = [OperationalError("COMMIT", {}, OSError("the connection is gone")), RuntimeError("an unexpected error")]


@pytest.mark.parametrize("error", LOST, ids=["lost", "odd"])
@pytest.mark.parametrize("took_place", [True, False], ids=["committed", "rolled back"])
def test_a_commit_without_a_response_is_unknown_and_is_not_retried(counter, monkeypatch, took_place, error):
    commits = []

    def lose(session):
        if session.scalar(sqlalchemy.text("SELECT count(*) FROM orders")) == 1:  # a timer's transaction
            commit(session)
            return
        commits.append(session)
        if took_place:
            commit(session)
        raise error

    with counter.serving(*({"key": str(number)} for number in range(3))) as asked:
        commit = Session.commit
        monkeypatch.setattr(Session, "commit", lose)
    answers = [one.wait() for one in asked]
    monkeypatch.undo()
    assert [(type(error), error.status) for error in answers] == [(UpstreamTimeout, 504)] * 3
    assert len(commits) == 1
    assert stored() == ((4, 4, 4, 3) if took_place else (1, 1, 1, 0))
    again = counter.serve(*({"key": str(number)} for number in range(3)))
    assert [order["status"] for order in again] == ["CREATED"] * 3
    assert stored() == (5, 5, 5, 3)


def test_a_killed_waiter_stores_nothing_and_a_killed_running_call_completes(counter):
    with counter.serving({"key": "a"}, {"key": "b"}) as asked:
        late = counter.queue({"key": "late"}, {"key": "too late"})
        counter.container._kill_worker_threads()
        answers = [one.wait() for one in (*asked, *late)]
    assert [(type(error), error.status) for error in answers] == [(UpstreamTimeout, 504)] * 4
    eventually(lambda: stored() == (3, 3, 3, 2))
    again = counter.serve({"key": "a"}, {"key": "late"})
    assert [order["status"] for order in again] == ["CREATED"] * 2
    assert stored() == (5, 5, 5, 3)


def test_a_waiter_that_times_out_is_removed_from_the_batch(counter):
    with counter.busy() as first:
        impatient = ask(key="k", timeout=0.5)
        eventually(lambda: len(counter.batcher._waiting) == 1)
        eventually(lambda: not counter.batcher._waiting)
        assert isinstance(impatient.wait(), OSError)
    assert first.wait()["status"] == "CREATED"
    assert stored() == (1, 1, 1, 0)


@pytest.mark.parametrize("size", [1, 3])
def test_a_connection_lost_during_the_commit_leaves_the_result_unknown(counter, monkeypatch, size):
    """Errors of the cleanup on the lost connection must not turn the unknown result into a 503."""
    cuts = []

    def cut_and_commit(dialect, connection):
        if connection.get_backend_pid() == theirs:
            cuts.append(connection)
            with socket.socket(fileno=os.dup(connection.fileno())) as its_socket:
                its_socket.shutdown(socket.SHUT_RDWR)
        commit(dialect, connection)

    with counter.serving(*({"key": str(number)} for number in range(size))) as asked:
        theirs = scalar("SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass")
        commit = PGDialect_psycopg2.do_commit
        monkeypatch.setattr(PGDialect_psycopg2, "do_commit", cut_and_commit)
    answers = [one.wait() for one in asked]
    monkeypatch.undo()
    assert [(type(error), error.status) for error in answers] == [(UpstreamTimeout, 504)] * size
    assert len(cuts) == 1
    again = counter.serve(*({"key": str(number)} for number in range(size)))
    assert [order["status"] for order in again] == ["CREATED"] * size
    assert stored() == (size + 2, size + 2, size + 2, size)
