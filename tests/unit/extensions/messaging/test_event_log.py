"""What enters the event log: no secrets, no personal data, and nothing that holds up the relay."""

import json
import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import ClassVar

import amqp
import pytest

from contracts.base import Event
from contracts.events import EVENTS, is_logged
from contracts.ids import new_id
from extensions.messaging import event_log
from extensions.messaging.event_log import EventLogWriter, entry_of
from extensions.messaging.event_log_reader import Position, entries_of
from extensions.messaging.publisher import Outcome

PRIVATE = re.compile("mail|token|secret|password|address|phone|recipient|city|postal")


def row(event_type="order.shipped", body='{"order_id":"1"}', attempts=0, **more):
    fields = {
        "event_type": event_type,
        "body": body,
        "attempts": attempts,
        "message_id": new_id(),
        "correlation_id": str(new_id()),
        "created_at": datetime(2026, 11, 22, 9, 30, tzinfo=UTC),
        "headers": {"x-request-id": "r-1", "causation-id": "c-1"},
    }
    return SimpleNamespace(**fields | more)


def received(body, service="orders", offset=7):
    message = amqp.Message(body.encode(), application_headers={"x-stream-offset": offset})
    message.properties["application_headers"] = {"x-stream-offset": offset}
    message.delivery_info = {"routing_key": service}
    return message


def test_an_entry_is_the_envelope_and_the_body():
    one = row(body='{"order_id":"1","user_id":"2"}')
    entry = json.loads(entry_of(one, "orders"))
    assert entry == {
        "event": "order.shipped",
        "event_id": str(one.message_id),
        "service": "orders",
        "at": "2026-11-22T09:30:00.000000Z",
        "order_id": one.correlation_id,
        "request_id": "r-1",
        "causation_id": "c-1",
        "data": {"order_id": "1", "user_id": "2"},
    }


def test_personal_data_is_left_out():
    entry = json.loads(entry_of(row("user.registered", '{"user_id":"1","email":"a@b.example"}'), "users"))
    assert entry["data"] == {"user_id": "1"}
    assert entry["order_id"] is None


def test_an_event_with_a_token_is_not_logged(monkeypatch):
    class Asked(Event):
        event_type: ClassVar[str] = "user.asked"
        producer: ClassVar[str] = "users"
        token: str

    class Timed(Event):
        event_type: ClassVar[str] = "user.timed"
        producer: ClassVar[str] = "users"
        secret_for: ClassVar[int] = 60

    monkeypatch.setitem(EVENTS, "user.asked", Asked)
    monkeypatch.setitem(EVENTS, "user.timed", Timed)
    rows = [row(name, '{"token":"t0p"}') for name in ("user.asked", "user.timed", "user.unknown")]
    assert [entry_of(one, "users") for one in rows] == ["", "", ""]
    assert EventLogWriter("users").messages(rows) == []


def test_no_event_that_is_logged_has_a_field_that_looks_personal():
    for name, event in EVENTS.items():
        shown = set(event.model_fields) - set(event.private_fields) if is_logged(event) else set()
        assert not {field for field in shown if PRIVATE.search(field)}, f"{name}: add them to private_fields"


def test_a_batch_is_one_message_unless_it_is_large(monkeypatch):
    rows = [row() for _ in range(10)]
    (message,) = EventLogWriter("orders").messages(rows)
    assert (message.exchange, message.routing_key) == ("logged-events", "orders")
    assert (message.mandatory, message.is_optional) == (True, True)
    assert [json.loads(line)["event_id"] for line in message.body.split("\n")] == [str(one.message_id) for one in rows]
    monkeypatch.setattr(event_log, "MESSAGE_BYTES", 2 * len(entry_of(rows[0], "orders")))
    assert [message.body.count("\n") for message in EventLogWriter("orders").messages(rows)] == [1] * 5


def test_an_event_that_was_refused_before_is_not_logged_again():
    assert EventLogWriter("orders").messages([row(attempts=1)]) == []


def ids(messages):
    return {message.message_id for message in messages}


def test_what_the_log_has_confirmed_is_done_with():
    writer, rows = EventLogWriter("orders"), [row(), row()]
    messages = writer.messages(rows)
    assert writer.unlogged(messages, Outcome(confirmed=ids(messages)), rows) == []
    assert writer.messages(rows)


@pytest.mark.parametrize("kind", ["refused", "unknown"])
def test_what_the_log_has_not_confirmed_is_kept_and_the_next_events_do_not_wait_for_it(kind):
    writer, rows = EventLogWriter("orders"), [row(), row(), row(attempts=1)]
    messages = writer.messages(rows)
    outcome = Outcome(**{kind: dict.fromkeys(ids(messages), "no queue") if kind == "refused" else ids(messages)})
    (body,) = writer.unlogged(messages, outcome, rows)
    assert body == messages[0].body
    assert writer.is_behind
    assert writer.messages(rows) == []
    assert writer.unlogged([], Outcome(), rows) == [body]


def test_a_message_that_was_not_sent_does_not_make_the_next_events_go_without_the_log():
    """The connection failed after some of the events: those are deleted from the outbox, the others come again."""
    writer, sent, waiting = EventLogWriter("orders"), row(), row()
    messages = writer.messages([sent, waiting])
    assert writer.unlogged(messages, Outcome(confirmed={str(sent.message_id)}), [sent]) == [entry_of(sent, "orders")]
    assert not writer.is_behind


def test_an_event_that_is_not_logged_leaves_nothing_to_write():
    writer = EventLogWriter("users")
    rows = [row("user.unknown", "{}")]
    assert writer.messages(rows) == []
    assert writer.unlogged([], Outcome(), rows) == []


def test_a_gap_is_an_entry():
    since, until = (datetime(2026, 11, 22, 9, minute, tzinfo=UTC) for minute in (30, 45))
    (entry,) = entries_of(received(event_log.gap_of("orders", since, until)))
    assert (entry.event, entry.order_id) == (event_log.GAP, None)
    assert json.loads(entry.text)["data"] == {
        "service": "orders",
        "since": "2026-11-22T09:30:00.000000Z",
        "until": "2026-11-22T09:45:00.000000Z",
    }


def test_entries_are_read_with_their_positions():
    rows = [row(), row("order.delivered")]
    (message,) = EventLogWriter("orders").messages(rows)
    entries = entries_of(received(message.body))
    assert [(str(one.position), one.event, one.event_id) for one in entries] == [
        ("7-0", "order.shipped", str(rows[0].message_id)),
        ("7-1", "order.delivered", str(rows[1].message_id)),
    ]
    assert str(entries[0].order_id) == rows[0].correlation_id


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "7",
        '{"event":"order.shipped"}',
        entry_of(row(), "payments"),
        entry_of(row("payment.captured"), "orders"),
        "[" * 100_000,
    ],
    ids=["empty", "no JSON", "a list", "a number", "no fields", "another service", "another's event", "deep"],
)
def test_one_bad_line_is_left_out(line):
    good = entry_of(row(), "orders")
    entries = entries_of(received(f"{line}\n{good}"))
    assert [entry.position for entry in entries] == [Position(7, 1)]


def test_a_position_is_spelt_in_one_way():
    assert Position.parse(str(Position(12, 3))) == Position(12, 3)
    for text in ("x", "1", "1-", "-1-0", "1-2-3", "٣-0", "1 -2", "9" * 40 + "-0"):
        with pytest.raises(ValueError, match=re.escape(text)):
            Position.parse(text)
