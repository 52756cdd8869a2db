"""What operators do with dead letters by RPC: list, filter and page through them, and replay each once, recorded."""

import pytest
import sqlalchemy

from contracts.errors import DeadLetterNotFound, InvalidState, PermissionDenied, ValidationFailed
from contracts.events import queue_name
from contracts.ids import new_id
from contracts.orders import OrderShipped
from extensions.messaging.event_handler import handles
from extensions.operations import operations
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.support import database, eventually

QUEUE = queue_name("notifications", OrderShipped)
ADMIN = {"user_id": str(new_id()), "roles": ["admin"]}
CUSTOMER = {"user_id": str(new_id()), "roles": ["customer"]}
SEEN = []


class Recorder(operations.Operations):
    """Takes the place of notifications, and consumes one event."""

    name = "notifications"
    work = Work(Base)

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        SEEN.extend(received.event for received in events)


@pytest.fixture
def letters(run_service, caller):
    """The RPC methods of a service without dead letters."""
    SEEN.clear()
    run_service(Recorder)
    return caller.notifications


def store(queue=QUEUE, body="", event_type="order.shipped", **values):
    """Insert a dead letter into the table; returns its id."""
    row = {"id": new_id(), "queue": queue, "body": body, "event_type": event_type, "headers": "{}"} | values
    statement = (
        "INSERT INTO dead_letters (id, queue, event_type, message_id, correlation_id, body, headers, error, attempts)"
        " VALUES (:id, :queue, :event_type, :id, '', :body, :headers, 'intended failure', 6)"
    )
    with database("notifications").begin() as connection:
        connection.execute(sqlalchemy.text(statement), row)
    return str(row["id"])


def shipped():
    return OrderShipped(order_id=new_id(), user_id=new_id())


def test_a_dead_letter_shows_the_message_its_queue_and_the_reason(letters):
    event = shipped()
    dead = store(body=event.to_json(), headers='{"x-request-id": "r-1"}')
    (letter,) = letters.list_dead_letters()["items"]
    assert (letter["id"], letter["service"], letter["queue"]) == (dead, "notifications", QUEUE)
    assert (letter["event"], letter["message_id"], letter["attempts"]) == ("order.shipped", dead, 6)
    assert (letter["error"], letter["body"]) == ("intended failure", event.to_json())
    assert letter["headers"] == {"x-request-id": "r-1"}
    assert letter["died_at"].endswith("Z")
    assert (letter["replayed_at"], letter["replayed_by"]) == (None, None)


def test_a_long_body_is_cut_off(letters):
    store(body="x" * 3_000_000)
    (letter,) = letters.list_dead_letters()["items"]
    assert letter["body"] == "x" * 2000


def test_pages_are_newest_first_and_stable_while_letters_are_added(letters):
    dead = [store() for _ in range(5)]
    first = letters.list_dead_letters(limit=2)
    store()
    second = letters.list_dead_letters(limit=2, cursor=first["next_cursor"])
    third = letters.list_dead_letters(limit=2, cursor=second["next_cursor"])
    pages = [first, second, third]
    assert [letter["id"] for page in pages for letter in page["items"]] == dead[::-1]
    assert third["next_cursor"] is None
    with pytest.raises(ValidationFailed, match="cursor"):
        letters.list_dead_letters(cursor="elsewhere")


def test_filters(letters):
    here, there = store(), store(queue="rpc-notifications", event_type=None)
    assert [letter["id"] for letter in letters.list_dead_letters(queue=QUEUE)["items"]] == [here]
    assert [letter["id"] for letter in letters.list_dead_letters(event="order.shipped")["items"]] == [here]
    assert [letter["id"] for letter in letters.list_dead_letters(queue="rpc-notifications")["items"]] == [there]
    assert letters.list_dead_letters(replayed=True)["items"] == []


def test_a_replay_is_handled_recorded_and_done_once(letters):
    event = shipped()
    dead = store(body=event.to_json())
    replayed = letters.replay_dead_letter(dead, actor=ADMIN)
    assert replayed["replayed_by"] == ADMIN["user_id"]
    eventually(lambda: event in SEEN)
    assert letters.list_dead_letters()["items"] == []
    assert letters.list_dead_letters(replayed=True)["items"] == [replayed]
    with pytest.raises(InvalidState, match=f"at {replayed['replayed_at'][:19]}Z by {ADMIN['user_id']}"):
        letters.replay_dead_letter(dead)
    with pytest.raises(InvalidState):
        letters.discard_dead_letter(dead)
    assert [event] == SEEN


def test_a_replay_without_an_actor_is_recorded_as_the_operator_s(letters):
    assert letters.replay_dead_letter(store(body=shipped().to_json()))["replayed_by"] == "the operator"


@pytest.mark.parametrize("queue", ["rpc-notifications", "inventory.on_order_created", "notifications.on_nothing", ""])
def test_a_message_without_a_handler_in_the_service_cannot_be_replayed(letters, queue):
    dead = store(queue=queue)
    with pytest.raises(InvalidState, match="only events"):
        letters.replay_dead_letter(dead)
    (letter,) = letters.list_dead_letters()["items"]
    assert letter["replayed_at"] is None
    letters.discard_dead_letter(dead)
    assert letters.list_dead_letters()["items"] == []


def test_a_replay_into_a_deleted_queue_is_refused(letters):
    dead = store(queue="notifications.on_payment_failed")  # this service has no handler for it
    with pytest.raises(InvalidState, match="does not exist any more"):
        letters.replay_dead_letter(dead)


def test_an_unknown_dead_letter_is_not_found(letters):
    for act in (letters.replay_dead_letter, letters.discard_dead_letter):
        with pytest.raises(DeadLetterNotFound):
            act(str(new_id()))
        with pytest.raises(ValidationFailed):
            act("42")


def test_customers_are_refused(letters):
    dead = store()
    for ask in (
        letters.list_dead_letters,
        lambda actor: letters.replay_dead_letter(dead, actor),
        lambda actor: letters.discard_dead_letter(dead, actor),
    ):
        with pytest.raises(PermissionDenied):
            ask(actor=CUSTOMER)


def test_a_replayed_message_waits_for_a_stopped_handler(run_service, caller, bus):
    """The queue is durable and the message persistent."""
    SEEN.clear()

    class WithoutHandler(operations.Operations):
        """Has dead letters, but no handler of the event."""

        name = "notifications"
        work = Work(Base)

    run_service(WithoutHandler)
    event = shipped()
    caller.notifications.replay_dead_letter(store(body=event.to_json()))
    assert not bus.is_drained(QUEUE)
    message = bus.channel.basic_get(QUEUE)
    assert message.properties["delivery_mode"] == 2
    bus.channel.basic_reject(message.delivery_tag, requeue=True)
