"""Orders that are asked for at the same moment: one transaction for all, and nobody's answer hangs on the others'."""

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
from tests.support import PATIENCE, Caller, database, eventually, owned_database

TRACES = [
    (f"request-{number}", f"00-4bf92f3577b34da6a3ce929d0e0e{number:04}-00f067aa0ba902b7-01") for number in range(6)
]


class Counter:
    """Orders, and the queue before it: who asks while an order is under way is served together with the others."""

    def __init__(self, container):
        self.container = container
        self.batcher = next(each for each in container.dependencies if isinstance(each, BatcherProvider)).batcher

    @contextmanager
    def busy(self):
        """Have an order under way that gets no further for as long as the block lasts."""
        with closed():
            first = ask()
            eventually(lambda: stuck() == 1)
            yield first

    def queue(self, *calls):
        """Begin calls, each when the one before stands in the queue; returns their greenlets."""
        asked = []
        for call in calls:
            asked.append(ask(**call))
            eventually(lambda: len(self.batcher._waiting) == len(asked))
        return asked

    def serve(self, *calls):
        """Make calls that are served together, in their order; returns what each came to."""
        with self.busy():
            asked = self.queue(*calls)
        return [one.wait() for one in asked]

    @contextmanager
    def serving(self, *calls):
        """Have such calls in the midst of their transaction for as long as the block lasts; yields their greenlets."""
        with ExitStack() as stack:
            with self.busy() as first:
                asked = self.queue(*calls)
                lock = eventlet.spawn(stack.enter_context, closed())  # it comes after the first, and before the others
                eventually(lambda: stuck() == 2)
            first.wait()
            lock.wait()
            eventually(lambda: not self.batcher._waiting and stuck() == 1)
            yield asked


@contextmanager
def closed():
    """Let nobody write an order for as long as the block lasts."""
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("LOCK TABLE orders IN SHARE MODE"))
        yield


def stuck():
    """How many transactions wait for that."""
    return scalar("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass")


def cut():
    """Cut the connection of the one that waits."""
    waiting = "FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass"
    assert scalar(f"SELECT count(pg_terminate_backend(pid)) {waiting}") == 1


def scalar(statement):
    with database("orders").connect() as connection:
        return connection.scalar(sqlalchemy.text(statement))


def ask(items=None, actor=ALICE, key=None, trace=None, timeout=PATIENCE):
    """Ask for an order; the greenlet returns it, or the error."""
    headers = dict(zip(("x-request-id", "traceparent"), trace, strict=True)) if trace else {}

    def call():
        try:
            return Caller(timeout, headers).orders.create_order(items or [line()], actor=actor, idempotency_key=key)
        except (ServiceError, OSError) as error:
            return error

    return eventlet.spawn(call)


def transactions():
    """How many orders each transaction has placed, the smallest first."""
    with database("orders").connect() as connection:
        return sorted(connection.scalars(sqlalchemy.text("SELECT count(*) FROM orders GROUP BY xmin::text")))


def stored():
    """How many orders, lines, events of timelines and idempotency keys there are."""
    tables = ("orders", "order_items", "timeline", "idempotency_keys")
    return tuple(scalar(f"SELECT count(*) FROM {table}") for table in tables)


@pytest.fixture
def counter(run_service, monkeypatch):
    monkeypatch.setattr("extensions.idempotency.batcher.MAX_DELAY_SECONDS", PATIENCE)
    patient = {"lock_timeout": "60s", "statement_timeout": "60s"}  # a test holds the lock, on a slow machine for long
    monkeypatch.setattr(postgres, "SESSION_SETTINGS", postgres.SESSION_SETTINGS | patient)
    catalog = Mock()
    catalog.catalog.get_products = lambda product_ids: {
        "items": [item for item in (PEN, BOOK, GONE) if item["id"] in product_ids]
    }
    return Counter(run_service(OrdersService, services=catalog))


@pytest.fixture
def poison(servers):
    """Thirteen of anything is more than the database can bear."""
    with owned_database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE order_items ADD CONSTRAINT poison CHECK (quantity <> 13)"))
    yield [line(quantity=13)]
    with owned_database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE order_items DROP CONSTRAINT poison"))


def test_orders_that_come_together_are_one_transaction_and_each_is_its_own(counter, caller, bus):
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


def test_each_event_belongs_to_the_request_that_asked_for_its_order(counter, bus):
    answers = counter.serve(*({"trace": trace} for trace in TRACES))
    for answer, (request_id, traceparent) in zip(answers, TRACES, strict=True):
        assert bus.wait_for("order.created", answer["id"])
        (message,) = [each for each in bus.heard if each.properties["correlation_id"] == answer["id"]]
        headers = message.properties["application_headers"]
        assert headers["x-request-id"] == request_id
        assert headers["traceparent"].split("-")[1] == traceparent.split("-")[1]
        assert "causation-id" not in headers


def test_a_refusal_is_the_answer_of_its_own_call_and_kept_as_such(counter, caller):
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
    assert stored() == (4, 4, 4, 4)  # and two without a key, who kept the others waiting


def test_a_repeated_refusal_names_the_request_that_was_refused_first(counter):
    calls = [{"items": [line(GONE)], "key": str(number), "trace": trace} for number, trace in enumerate(TRACES)]
    counter.serve(*calls)
    again = counter.serve(*({**call, "trace": None} for call in calls))
    assert [error.replay_of for error in again] == [request_id for request_id, _ in TRACES]


def test_a_key_that_comes_twice_at_once_is_in_use_the_second_time(counter, caller):
    """And is told so at once: it does not wait for the first one's end, to be told its answer."""
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


def test_a_key_that_is_used_elsewhere_is_in_use_for_its_own_call_alone(counter):
    lock = f"SELECT pg_advisory_xact_lock(hashtextextended('{ALICE['user_id']}\ncreate_order\nk', 0))"
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text(lock))
        refused, placed = counter.serve({"key": "k"}, {"key": "another"})
    assert isinstance(refused, IdempotencyKeyInUse)
    assert placed["status"] == "CREATED"


def test_a_key_whose_transaction_is_under_way_is_in_use(counter):
    with counter.serving({"key": "k"}, {"key": "another"}) as asked:
        assert isinstance(ask(key="k").wait(), IdempotencyKeyInUse)
    assert [one.wait()["status"] for one in asked] == ["CREATED"] * 2


def test_what_is_no_key_is_refused_alone(counter):
    refused, placed = counter.serve({"key": "two words"}, {"key": "one"})
    assert [error.field for error in refused.errors] == ["Idempotency-Key"]
    assert placed["status"] == "CREATED"


def test_fifty_calls_at_once_with_one_key_leave_one_order(counter):
    asked = [ask(key="k") for _ in range(50)]
    answers = [one.wait() for one in asked]
    orders = {answer["id"] for answer in answers if isinstance(answer, dict)}
    assert {type(answer) for answer in answers} <= {dict, IdempotencyKeyInUse}
    assert len(orders) == 1
    assert stored() == (1, 1, 1, 1)


def test_one_that_the_database_refuses_harms_no_other(counter, poison, caller):
    calls = [{"key": "a"}, {"items": poison, "key": "poison"}, {"items": [line(GONE)], "key": "gone"}, {"key": "b"}]
    first, broken, gone, last = counter.serve(*calls)
    assert [type(error) for error in (broken, gone)] == [InternalError, ProductUnavailable]
    assert caller.orders.get_order(first["id"]) == first
    assert caller.orders.get_order(last["id"]) == last
    assert transactions() == [1, 1, 1]
    assert scalar("SELECT array_agg(key ORDER BY key) FROM idempotency_keys") == ["a", "b", "gone"]


def test_a_key_that_was_stored_behind_our_back_undoes_nobody_else(counter):
    """Its lock and look-up are one statement, whose view of the table is older than its lock."""
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


def test_a_connection_that_is_cut_in_the_midst_leaves_nothing_of_any(counter, bus):
    with counter.serving(*({"key": str(number)} for number in range(4))) as asked:
        cut()
        answers = [one.wait() for one in asked]
    assert [(type(error), error.status) for error in answers] == [(ServiceUnavailable, 503)] * 4
    assert stored() == (1, 1, 1, 0)
    again = counter.serve(*({"key": str(number)} for number in range(4)))
    assert len({order["id"] for order in again}) == 4
    assert stored() == (6, 6, 6, 4)
    assert len(bus.wait_for("order.created", count=6)) == 6


def test_while_each_is_tried_alone_the_first_that_meets_no_database_is_the_last(counter, poison):
    with ExitStack() as stack:
        with counter.serving({"key": "a"}, {"items": poison}, {"key": "b"}) as asked:
            lock = eventlet.spawn(stack.enter_context, closed())
            eventually(lambda: stuck() == 2)
        lock.wait()  # together they have failed
        eventually(lambda: stuck() == 1)
        cut()
    assert [type(one.wait()) for one in asked] == [ServiceUnavailable] * 3
    assert stored() == (1, 1, 1, 0)


LOST = [OperationalError("COMMIT", {}, OSError("the connection is gone")), RuntimeError("nobody expects this")]


@pytest.mark.parametrize("error", LOST, ids=["lost", "odd"])
@pytest.mark.parametrize("took_place", [True, False], ids=["committed", "rolled back"])
def test_of_a_commit_whose_answer_was_lost_nobody_knows_and_nothing_is_tried_again(
    counter, monkeypatch, took_place, error
):
    commits = []

    def lose(session):
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


def test_who_is_killed_while_waiting_leaves_nothing_and_who_is_in_the_midst_all(counter):
    with counter.serving({"key": "a"}, {"key": "b"}) as asked:
        late = counter.queue({"key": "late"}, {"key": "too late"})
        counter.container._kill_worker_threads()
        answers = [one.wait() for one in (*asked, *late)]
    assert [(type(error), error.status) for error in answers] == [(UpstreamTimeout, 504)] * 4
    eventually(lambda: stored() == (3, 3, 3, 2))
    again = counter.serve({"key": "a"}, {"key": "late"})
    assert [order["status"] for order in again] == ["CREATED"] * 2
    assert stored() == (5, 5, 5, 3)


def test_who_loses_patience_while_waiting_is_not_served(counter):
    with counter.busy() as first:
        impatient = ask(key="k", timeout=0.5)
        eventually(lambda: len(counter.batcher._waiting) == 1)
        eventually(lambda: not counter.batcher._waiting)
        assert isinstance(impatient.wait(), OSError)
    assert first.wait()["status"] == "CREATED"
    assert stored() == (1, 1, 1, 0)


@pytest.mark.parametrize("size", [1, 3])
def test_a_connection_that_is_lost_with_its_commit_under_way_leaves_it_unknown(counter, monkeypatch, size):
    """Nothing that is tidied up after it, on a connection that is no more, may make a 503 of that."""
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
