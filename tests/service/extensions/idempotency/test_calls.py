"""A call with an idempotency key is made once, however often it is repeated."""

import json

import eventlet
import pytest
import sqlalchemy

from contracts.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InternalError,
    InvalidState,
    ServiceError,
    ServiceUnavailable,
    ValidationFailed,
)
from contracts.ids import new_id
from contracts.orders import OrderShipped
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.support import Caller, database, eventually

ALICE = {"user_id": str(new_id()), "roles": ["customer"]}
BOB = {"user_id": str(new_id()), "roles": ["customer"]}
CALLS = []


class Maker(operations.Operations):
    """Creates one thing per call: a row and an event."""

    name = "notifications"
    work = Work(Base)

    @rpc(idempotent=True)
    def make(self, thing, pause=0.0, actor=None, idempotency_key=None):
        return self._make(thing, pause)

    @rpc(idempotent=True)
    def make_many(self, thing, actor=None, idempotency_key=None):
        return {"things": [self._make(thing, 0.0)], "number": 1, "is_new": True, "by": None}

    @rpc(idempotent=True)
    def make_another(self, thing, actor=None, idempotency_key=None):
        return self._make(thing, 0.0)

    @rpc(idempotent=True)
    def fail(self, error, actor=None, idempotency_key=None):
        self._make(error, 0.0)
        if error == "slow":
            self.work.session.execute(sqlalchemy.text("SET LOCAL statement_timeout = 10"))
            self.work.session.execute(sqlalchemy.text("SELECT pg_sleep(1)"))
        raise {
            "state": InvalidState("too late"),
            "field": ValidationFailed.field("thing", "wrong"),
            "outage": ServiceUnavailable(),
            "defect": ZeroDivisionError(),
        }[error]

    def _make(self, thing, pause):
        CALLS.append(thing)
        inbox, number = self.work.table("inbox"), new_id()
        self.work.session.execute(sqlalchemy.insert(inbox).values(message_id=number, handler=thing))
        self.work.publish(OrderShipped(order_id=number, user_id=number))
        eventlet.sleep(pause)
        return {"id": str(number), "thing": thing}


@pytest.fixture
def maker(run_service, caller):
    CALLS.clear()
    run_service(Maker)
    return caller.notifications


def made(thing):
    with database("notifications").connect() as connection:
        return connection.scalar(sqlalchemy.text("SELECT count(*) FROM inbox WHERE handler = :it"), {"it": thing})


def test_the_same_key_gives_the_same_result(maker, bus):
    first = maker.make("pen", actor=ALICE, idempotency_key="k")
    assert maker.make("pen", actor=ALICE, idempotency_key="k") == first
    assert maker.make(thing="pen", idempotency_key="k", actor=ALICE | {"roles": ["admin"]}) == first
    assert made("pen") == 1
    assert len(bus.wait_for("order.shipped", first["id"])) == 1
    assert CALLS == ["pen"]


def test_the_same_key_gives_the_same_result_with_its_fields_in_the_same_order(maker):
    first, again = (maker.make_many("pen", actor=ALICE, idempotency_key="k") for _ in range(2))
    assert json.dumps(again) == json.dumps(first)


def test_a_result_that_was_stored_as_an_object_is_still_replayed(maker):
    first = maker.make("pen", actor=ALICE, idempotency_key="k")
    with database("notifications").begin() as connection:
        as_object = "UPDATE idempotency_keys SET answer = CAST(answer #>> '{}' AS jsonb)"
        connection.execute(sqlalchemy.text(as_object))
    assert maker.make("pen", actor=ALICE, idempotency_key="k") == first


def test_without_a_key_every_call_creates_a_thing(maker):
    assert maker.make("pen", actor=ALICE) != maker.make("pen", actor=ALICE)
    assert made("pen") == 2


def test_a_key_cannot_be_reused_for_another_request(maker):
    maker.make("pen", actor=ALICE, idempotency_key="k")
    with pytest.raises(IdempotencyKeyReused):
        maker.make("book", actor=ALICE, idempotency_key="k")
    assert made("book") == 0


def test_keys_are_separate_for_each_actor_and_method(maker):
    results = [
        maker.make("pen", actor=ALICE, idempotency_key="k"),
        maker.make("pen", actor=BOB, idempotency_key="k"),
        maker.make("pen", idempotency_key="k"),
        maker.make_another("pen", actor=ALICE, idempotency_key="k"),
        maker.make("pen", actor=ALICE, idempotency_key="K"),
    ]
    assert len({result["id"] for result in results}) == 5
    assert maker.make("pen", actor=BOB, idempotency_key="k") == results[1]


def test_a_refusal_is_stored_and_its_changes_are_rolled_back(maker, bus):
    for _ in range(2):
        with pytest.raises(InvalidState, match="too late"):
            maker.fail("state", actor=ALICE, idempotency_key="k")
    assert CALLS == ["state"]
    assert made("state") == 0
    maker.make("pen", idempotency_key="after")
    assert len(bus.wait_for("order.shipped")) == 1  # the event of the refused call was rolled back too


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("field", ValidationFailed),
        ("outage", ServiceUnavailable),
        ("slow", ServiceUnavailable),
        ("defect", InternalError),
    ],
)
def test_a_failure_that_a_retry_can_fix_is_not_stored(maker, error, kind):
    for _ in range(2):
        with pytest.raises(kind):
            maker.fail(error, actor=ALICE, idempotency_key="k")
    assert len(CALLS) == 2
    assert made(error) == 0
    with pytest.raises(InvalidState):
        maker.fail("state", actor=ALICE, idempotency_key="k")


def test_concurrent_calls_with_one_key_create_one_thing(maker):
    def call(_):
        try:
            return Caller().notifications.make("pen", 0.2, actor=ALICE, idempotency_key="k")["id"]
        except IdempotencyKeyInUse:
            return None

    answers = list(eventlet.GreenPool(30).imap(call, range(30)))
    assert len(set(answers) - {None}) == 1
    assert made("pen") == 1
    assert CALLS == ["pen"]
    assert maker.make("pen", 0.2, actor=ALICE, idempotency_key="k")["id"] in answers


def test_a_call_that_lost_its_connection_releases_its_key(maker, servers):
    call = eventlet.spawn(attempt, maker.make, "pen", 3.0, actor=ALICE, idempotency_key="k")
    eventually(lambda: CALLS == ["pen"])
    with pytest.raises(IdempotencyKeyInUse) as refusal:
        maker.make("pen", 3.0, actor=ALICE, idempotency_key="k")
    assert refusal.value.retry_after == 1
    servers.postgres.restart()
    call.kill()
    eventually(lambda: attempt(maker.make, "pen", actor=ALICE, idempotency_key="k"), timeout=30)
    assert made("pen") == 1


def attempt(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except (ServiceError, OSError):
        return None


@pytest.mark.parametrize(
    "key", ["", "x" * 256, "ş", "two\nlines", "\x00", 7, True, ["k"], {}], ids=lambda key: ascii(key)[:9]
)
def test_a_malformed_key_is_refused_by_its_field(maker, key):
    with pytest.raises(ValidationFailed) as refusal:
        maker.make("pen", actor=ALICE, idempotency_key=key)
    assert [error.field for error in refusal.value.errors] == ["Idempotency-Key"]
    assert made("pen") == 0


def test_the_longest_key_is_accepted(maker):
    key = "~" * 255
    assert maker.make("pen", idempotency_key=key) == maker.make("pen", idempotency_key=key)
