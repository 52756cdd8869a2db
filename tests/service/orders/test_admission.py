"""Admission with many undecided orders: what waits, what is refused, what still works, and what makes room."""

from datetime import timedelta
from unittest.mock import Mock

import eventlet
import nameko
import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from contracts.errors import IdempotencyKeyInUse, IdempotencyKeyReused, Overloaded, ServiceError
from contracts.inventory import StockFailed
from orders import queries
from orders.admission import Waiting
from orders.providers import AdmissionQueueProvider
from orders.service import OrdersService
from tests.service.orders.test_service import ALICE, BOB, PEN, line
from tests.support import TEST_TIMEOUT_SECONDS, Caller, database, eventually

LIMIT = 5
WAIT_SECONDS = 0.4
ONE_PEN = [line(quantity=1)]


@pytest.fixture
def catalog():
    services = Mock()
    services.within.return_value = services
    services.catalog.get_products.return_value = {"items": [PEN]}
    return services


def start(run_service, catalog, **settings):
    with nameko.config.patch({"MAX_UNDECIDED_ORDERS": LIMIT, **settings}):
        return run_service(OrdersService, services=catalog)


@pytest.fixture
def orders(run_service, caller, catalog):
    """Orders that let nobody wait for long."""
    start(run_service, catalog, ORDER_WAIT_SECONDS=WAIT_SECONDS)
    return caller.orders


@pytest.fixture
def patient(run_service, caller, catalog):
    """Orders that let new orders wait as long as the tests may take, and in which no undecided order is late."""
    never = 100 * TEST_TIMEOUT_SECONDS
    container = start(run_service, catalog, ORDER_WAIT_SECONDS=TEST_TIMEOUT_SECONDS, ORDER_DEADLINE_SECONDS=never)
    queue = next(each for each in container.dependencies if isinstance(each, AdmissionQueueProvider)).admission_queue
    return Mock(rpc=caller.orders, admission=queue.admission)


def fill(orders):
    """Place orders up to the limit, each with its own idempotency key: k0, k1, ..."""
    return [orders.create_order(ONE_PEN, actor=ALICE, idempotency_key=f"k{number}") for number in range(LIMIT)]


def ask(**more):
    """Place an order in a greenlet, which returns the order or the error."""

    def call():
        try:
            return Caller(TEST_TIMEOUT_SECONDS).orders.create_order(ONE_PEN, **({"actor": ALICE} | more))
        except (ServiceError, OSError) as error:
            return error

    return eventlet.spawn(call)


def let_all_in(queue):
    queue.admission.limit.highest, queue.admission.limit._limit = 100, 100.0


def stored():
    with database("orders").connect() as connection:
        counts = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM timeline),"
        return tuple(connection.execute(sqlalchemy.text(counts + " (SELECT count(*) FROM idempotency_keys)")).one())


def decide(bus, order):
    bus.publish(StockFailed(order_id=order["id"], reason="OUT_OF_STOCK", shortages=()))


def test_orders_over_the_limit_wait_and_are_placed_in_their_order_as_others_are_decided(patient, bus):
    undecided = fill(patient.rpc)
    waiting = []
    for number in range(3):
        waiting.append(ask(idempotency_key=f"w{number}"))
        eventually(lambda: patient.admission.waiting == len(waiting))
    for number in range(3):
        decide(bus, undecided[number])
        order = waiting[number].wait()
        assert order["status"] == "CREATED"
        assert patient.admission.waiting == 2 - number
    assert stored()[0] == LIMIT + 3


def test_orders_that_wait_keep_no_other_call_waiting(run_service, caller, catalog):
    """More of them than RPC_PREFETCH."""
    container = start(run_service, catalog, ORDER_WAIT_SECONDS=TEST_TIMEOUT_SECONDS, RPC_PREFETCH=2)
    queue = next(each for each in container.dependencies if isinstance(each, AdmissionQueueProvider)).admission_queue
    first, *_ = fill(caller.orders)
    waiting = [ask() for _ in range(8)]
    eventually(lambda: queue.admission.waiting == len(waiting))
    for _ in range(3):
        assert caller.orders.get_order(first["id"], actor=ALICE)["status"] == "CREATED"
    assert queue.admission.waiting == len(waiting)
    let_all_in(queue)
    assert {one.wait()["status"] for one in waiting} == {"CREATED"}


def test_only_so_many_orders_wait(run_service, caller, catalog):
    container = start(run_service, catalog, ORDER_WAIT_SECONDS=TEST_TIMEOUT_SECONDS, MAX_WAITING_ORDERS=2)
    queue = next(each for each in container.dependencies if isinstance(each, AdmissionQueueProvider)).admission_queue
    fill(caller.orders)
    waiting = [ask() for _ in range(2)]
    eventually(lambda: queue.admission.waiting == 2)
    assert isinstance(ask().wait(), Overloaded)
    assert queue.admission.waiting == 2
    let_all_in(queue)
    assert {one.wait()["status"] for one in waiting} == {"CREATED"}


def test_orders_beyond_the_queue_are_refused_at_once_while_others_are_placed_slowly(
    run_service, caller, catalog, monkeypatch
):
    """In the queue of the broker they would wait for as long as their callers."""
    place, door = OrdersService._place, eventlet.Event()
    monkeypatch.setattr(OrdersService, "_place", lambda *arguments: door.wait() or place(*arguments))
    container = start(
        run_service, catalog, ORDER_WAIT_SECONDS=TEST_TIMEOUT_SECONDS, MAX_WAITING_ORDERS=2, RPC_PREFETCH=1
    )
    queue = next(each for each in container.dependencies if isinstance(each, AdmissionQueueProvider)).admission_queue
    accepted = [ask() for _ in range(LIMIT + 2)]
    eventually(lambda: (queue.admission._placing, queue.admission.waiting) == (LIMIT, 2))
    assert all(isinstance(ask().wait(), Overloaded) for _ in range(3))
    let_all_in(queue)
    door.send()
    assert {one.wait()["status"] for one in accepted} == {"CREATED"}


def test_where_placing_takes_long_an_order_waits_for_a_shorter_time(run_service, catalog, caller, monkeypatch):
    """Otherwise it would be let in when its caller has too little time left, which then gets 504."""
    container = start(run_service, catalog, ORDER_WAIT_SECONDS=TEST_TIMEOUT_SECONDS)
    queue = next(each for each in container.dependencies if isinstance(each, AdmissionQueueProvider)).admission_queue
    fill(caller.orders)
    entered, enter = [], queue.admission.enter
    monkeypatch.setattr(queue.admission, "enter", lambda ticket, seconds: entered.append(seconds) or enter(ticket, 0))
    for mean in (0.01, 0.6, 60.0):
        queue._mean_placing_seconds = mean
        with pytest.raises(Overloaded):
            Caller(TEST_TIMEOUT_SECONDS).orders.create_order(ONE_PEN, actor=ALICE)
    left = [TEST_TIMEOUT_SECONDS - seconds for seconds in entered]
    assert [round(seconds - left[0], 1) for seconds in left] == pytest.approx([0.0, 0.4, 1.5], abs=0.2)


def test_a_key_whose_order_waits_is_in_use(patient, bus):
    undecided = fill(patient.rpc)
    waiting = ask(idempotency_key="w")
    eventually(lambda: patient.admission.waiting == 1)
    assert isinstance(ask(idempotency_key="w").wait(), IdempotencyKeyInUse)
    decide(bus, undecided[0])
    assert waiting.wait()["status"] == "CREATED"


def test_an_order_that_waited_in_vain_is_refused_and_the_next_ones_at_once(orders, catalog):
    fill(orders)
    before = stored()
    with pytest.raises(Overloaded, match="Nothing was done") as refusal:
        orders.create_order(ONE_PEN, actor=ALICE, idempotency_key="new")
    assert (refusal.value.status, refusal.value.code, refusal.value.retry_after) == (503, "SERVICE_UNAVAILABLE", 1)
    asked = catalog.catalog.get_products.call_count
    with pytest.raises(Overloaded):
        orders.create_order(ONE_PEN, actor=ALICE)
    assert stored() == before
    assert catalog.catalog.get_products.call_count == asked  # the refusal caused no call to catalog


def test_repeated_requests_of_earlier_orders_still_get_their_result(orders):
    first = fill(orders)[0]
    for _ in range(2):  # after a wait, and then at once
        assert orders.create_order(ONE_PEN, actor=ALICE, idempotency_key="k0") == first
    with pytest.raises(IdempotencyKeyReused):
        orders.create_order([line(quantity=2)], actor=ALICE, idempotency_key="k0")
    with pytest.raises(Overloaded):
        orders.create_order(ONE_PEN, actor=BOB, idempotency_key="k0")


def test_a_decision_makes_room_and_a_refused_key_can_be_used_again(orders, bus):
    undecided = fill(orders)
    with pytest.raises(Overloaded):
        orders.create_order(ONE_PEN, actor=ALICE, idempotency_key="new")
    decide(bus, undecided[0])
    eventually(lambda: orders.get_order(undecided[0]["id"])["status"] == "CANCELLED")

    def try_again():
        try:
            return orders.create_order(ONE_PEN, actor=ALICE, idempotency_key="new")
        except Overloaded:
            return None

    assert eventually(try_again)["status"] == "CREATED"
    with pytest.raises(Overloaded):
        orders.create_order(ONE_PEN, actor=ALICE)


def test_orders_can_still_be_cancelled_and_read(orders):
    undecided = fill(orders)
    assert orders.get_order(undecided[0]["id"], actor=ALICE)["status"] == "CREATED"
    assert orders.cancel_order(undecided[0]["id"], actor=ALICE)["status"] == "CANCELLED"


def test_late_orders_are_counted_separately(orders):
    fill(orders)
    deadline, late_after = timedelta(seconds=30), timedelta(seconds=7.5)
    with Session(database("orders")) as session:
        assert queries.count_waiting(session, deadline, late_after) == Waiting(undecided=LIMIT, late=0)
        session.execute(sqlalchemy.text("UPDATE orders SET deadline_at = clock_timestamp() + interval '22 s'"))
        assert queries.count_waiting(session, deadline, late_after) == Waiting(undecided=LIMIT, late=LIMIT)
        session.execute(sqlalchemy.text("UPDATE orders SET deadline_at = clock_timestamp() + interval '23 s'"))
        assert queries.count_waiting(session, deadline, late_after) == Waiting(undecided=LIMIT, late=0)
