"""Notifications in a real container: one for each event, and read only by its user."""

from decimal import Decimal

import pytest
from sqlalchemy import text

from contracts.errors import ValidationFailed
from contracts.ids import new_id
from contracts.notifications import NotificationNotFound
from contracts.orders import (
    CancelReason,
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderDelivered,
    OrderShipped,
)
from contracts.users import UserRegistered
from notifications.service import NotificationsService
from tests.support import database, eventually

USER, ORDER = new_id(), new_id()
OWNER = {"user_id": str(USER), "roles": ["customer"]}
ADMIN = {"user_id": str(new_id()), "roles": ["customer", "admin"]}
STRANGER = {"user_id": str(new_id()), "roles": ["customer"]}
PRICE = {"total_amount": Decimal("149.90"), "currency": "TRY"}
EVENTS = [
    UserRegistered(user_id=USER, email="ada@example.com"),
    OrderCreated(order_id=ORDER, user_id=USER, items=(), **PRICE),
    OrderConfirmed(order_id=ORDER, user_id=USER, **PRICE),
    OrderCancelled(order_id=ORDER, user_id=USER, reason=CancelReason.USER),
    OrderShipped(order_id=ORDER, user_id=USER),
    OrderDelivered(order_id=ORDER, user_id=USER),
]


@pytest.fixture
def notifications(shared_services, caller):
    shared_services(NotificationsService)
    return caller.notifications


@pytest.fixture
def told(notifications, bus):
    """Returns a function that publishes events and awaits this number of notifications."""

    def tell(*events, count=None):
        for event in events:
            bus.publish(event)
        wanted = len(events) if count is None else count
        return eventually(
            lambda: (found := notifications.list_notifications(limit=100)["items"]) and len(found) == wanted and found
        )

    return tell


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_type)
def test_each_event_becomes_a_notification(told, event):
    [notification] = told(event)
    order_id = None if isinstance(event, UserRegistered) else str(ORDER)
    assert notification["subject"]
    assert ("ada@example.com" if order_id is None else order_id) in notification["body"]
    assert {key: notification[key] for key in ("order_id", "kind", "channel", "status", "read_at")} == {
        "order_id": order_id,
        "kind": event.event_type,
        "channel": "IN_APP",
        "status": "SENT",
        "read_at": None,
    }


def test_duplicate_events_create_no_second_notification(told, bus):
    message_id = bus.publish(EVENTS[1])
    bus.publish(EVENTS[1], message_id=message_id)  # the same message again
    bus.publish(EVENTS[1])  # the same event as another message
    told(*EVENTS, count=len(EVENTS))
    inbox = text("SELECT count(*) FROM inbox WHERE handler = 'on_order_created'")
    with database("notifications").connect() as connection:
        eventually(lambda: connection.scalar(inbox) == 3)
    told(count=len(EVENTS))


def test_users_read_only_their_own_notifications(told, notifications):
    told(EVENTS[0], UserRegistered(user_id=new_id(), email="other@example.com"))
    [own] = notifications.list_notifications(actor=OWNER)["items"]
    assert "ada@example.com" in own["body"]
    assert notifications.list_notifications(actor=ADMIN)["items"] == []
    assert len(notifications.list_notifications()["items"]) == 2, "the operator sees all"


def test_pages(told, notifications):
    told(*EVENTS)
    page = notifications.list_notifications(limit=4, actor=OWNER)
    rest = notifications.list_notifications(limit=4, cursor=page["next_cursor"], actor=OWNER)
    ids = [each["id"] for each in page["items"] + rest["items"]]
    assert ids == sorted(ids, reverse=True)
    assert (len(set(ids)), rest["next_cursor"]) == (len(EVENTS), None)


def test_marking_as_read_counts_once(told, notifications):
    [notification] = told(EVENTS[0])
    assert notifications.mark_read(notification["id"], actor=OWNER) is None
    [read] = notifications.list_notifications(actor=OWNER)["items"]
    assert (read["status"], read["read_at"] > read["created_at"]) == ("READ", True)
    notifications.mark_read(notification["id"], actor=OWNER)
    assert notifications.list_notifications(actor=OWNER)["items"] == [read]


def test_only_existing_notifications_of_the_user_can_be_marked_as_read(told, notifications):
    [notification] = told(EVENTS[0])
    for notification_id, actor in ((notification["id"], STRANGER), (str(new_id()), OWNER), (str(new_id()), None)):
        with pytest.raises(NotificationNotFound):
            notifications.mark_read(notification_id, actor=actor)
    with pytest.raises(ValidationFailed, match="notification_id"):
        notifications.mark_read("1", actor=OWNER)
    notifications.mark_read(notification["id"])
    assert notifications.list_notifications()["items"][0]["status"] == "READ"
