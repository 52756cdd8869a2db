"""What the leases and locks of work items guarantee: see qa/remedies/outside_calls.py."""

import eventlet
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from extensions.storage import engine, work_items
from payments.provider import Operation
from tests.service.payments.test_provider_calls import (  # noqa: F401  (the fixtures)
    PATIENT,
    Scripted,
    confirmed,
    created,
    payment_of,
    provider,
    rows,
    runner_of,
    start,
)
from tests.support import database, empty_database, eventually

LEASE_SECONDS = 60.0
HOURS = 10_000.0
LONG_TRANSACTIONS = """
    SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND state LIKE 'idle in transaction%'
"""


@pytest.fixture
def items(servers):
    """Two due items that nothing claims."""
    empty_database("payments")
    with Session(database("payments")) as session:
        work_items.schedule(session, {"a": "authorisation", "b": "authorisation"})
        session.commit()
    yield ["a", "b"]
    empty_database("payments")


def claim(session, longest_pause=LEASE_SECONDS):
    values = {"fresh": 10, "again": 10, "seconds": LEASE_SECONDS, "longest_pause": longest_pause}
    return {item.key for item in work_items.claim(session, "authorisation", "a test", **values)}


def test_a_claim_passes_over_items_that_another_transaction_has_locked(items):
    with database("payments").connect() as other, Session(database("payments")) as session:
        other.execute(text("SELECT FROM work_items WHERE key = 'a' FOR UPDATE"))
        session.execute(text("SET LOCAL lock_timeout = '1s'"))
        assert claim(session) == {"b"}


def test_concurrent_claims_share_the_items_and_claim_none_twice(items):
    with Session(database("payments")) as one, Session(database("payments")) as other:
        other.execute(text("SET LOCAL lock_timeout = '1s'"))
        assert (claim(one), claim(other)) == ({"a", "b"}, set())
        one.commit()
        assert claim(other) == set()


def test_a_step_that_is_due_later_waits_until_it_is_scheduled_sooner(items):
    later = work_items.Later("authorisation", 3600.0)
    with Session(database("payments")) as session:
        assert claim(session, HOURS) == {"a", "b"}
        work_items.continue_with(session, {"a": later, "b": "authorisation"})
        assert claim(session, HOURS) == {"b"}
        work_items.continue_with(session, {"b": later})
        work_items.schedule(session, {"a": work_items.Later("authorisation", 7200.0), "c": later})
        assert claim(session, HOURS) == set()
        hours = text("SELECT key, round(extract(epoch FROM next_attempt_at - now()) / 3600)::integer FROM work_items")
        assert dict(session.execute(hours).all()) == {"a": 1, "b": 1, "c": 1}
        work_items.schedule(session, {"a": "authorisation"})
        assert claim(session, HOURS) == {"a"}
        session.rollback()


def test_a_call_that_takes_long_holds_no_transaction(start, bus, rows, provider, monkeypatch):  # noqa: F811
    monkeypatch.setitem(engine.SESSION_SETTINGS, "idle_in_transaction_session_timeout", "10min")
    door = eventlet.Event()
    provider.before = lambda _: door.wait()
    start(provider, PATIENT)
    bus.publish(order := created())
    eventually(lambda: provider.asked)
    eventually(lambda: rows(LONG_TRANSACTIONS) == [])  # others are short
    assert payment_of(rows, order).status == "PENDING"
    door.send()
    bus.wait_for("payment.authorized", order.order_id)


def test_the_result_of_a_lost_lease_does_not_end_the_next_call(start, bus, rows, monkeypatch):  # noqa: F811
    slow, quick = Scripted(), Scripted()
    authorising, capturing = eventlet.Event(), eventlet.Event()
    slow.before = lambda _: authorising.wait()
    quick.before = lambda call: call.operation is Operation.CAPTURE and capturing.wait()
    slow._ledger = quick._ledger
    suspended = start(slow, PATIENT)
    bus.publish(order := created())
    eventually(lambda: slow.asked)
    runner_of(suspended).stopping = True  # it claims nothing more
    start(quick, PATIENT)
    rows("UPDATE work_items SET next_attempt_at = clock_timestamp()")  # the lease ends
    bus.wait_for("payment.authorized", order.order_id)
    bus.publish(confirmed(order))
    eventually(lambda: quick.count(order, Operation.CAPTURE))
    lease, recorded = rows("SELECT key, lease FROM work_items"), []
    recorder = runner_of(suspended).recorder
    in_transaction = recorder._in_transaction
    monkeypatch.setattr(recorder, "_in_transaction", lambda step: (in_transaction(step), recorded.append(step))[0])
    authorising.send()
    eventually(lambda: recorded)
    assert rows("SELECT key, lease FROM work_items") == lease
    capturing.send()
    bus.wait_for("payment.captured", order.order_id)
    eventually(lambda: rows("SELECT FROM work_items") == [])
