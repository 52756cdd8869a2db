"""The position of a stream: no notification is passed over that is committed later than one with a higher position."""

import pytest
from sqlalchemy.orm import Session

from contracts.ids import new_id
from contracts.notifications import NotificationPositions
from notifications.models import Notification
from notifications.stream_queries import list_new
from tests.support import database, empty_database

USER = new_id()


@pytest.fixture(autouse=True)
def clean(servers):
    empty_database("notifications")


def add(session, user_id=USER, *, in_app=True):
    row = Notification(user_id=user_id, about_id=new_id(), kind="order.created", subject="s", body="b", in_app=in_app)
    session.add(row)
    session.flush()
    return row.id


def new_since(position, *users):
    known = [{"user_id": str(user), "xact": position.xact, "id": str(position.id)} for user in users]
    with Session(database("notifications")) as session:
        return list_new(session, NotificationPositions.parse({"users": known}))


def ids(found):
    return [one.notification.id for one in found.items]


def test_what_is_committed_late_is_not_passed_over():
    start = new_since(None)
    with Session(database("notifications")) as early, Session(database("notifications")) as late:
        first = add(early)
        second = add(late)
        late.commit()
        assert ids(new_since(start, USER)) == []  # the first one may still come
        early.commit()
    found = new_since(start, USER)
    assert ids(found) == [first, second]
    last = found.items[-1]
    rest = list_new_after(last)
    assert ids(rest) == []


def list_new_after(item):
    known = [{"user_id": str(USER), "xact": item.xact, "id": str(item.notification.id)}]
    with Session(database("notifications")) as session:
        return list_new(session, NotificationPositions.parse({"users": known}))


def test_each_user_gets_the_own_and_nothing_from_before():
    other = new_id()
    with Session(database("notifications")) as session:
        add(session)
        session.commit()
        start = new_since(None)
        mine, theirs = add(session), add(session, other)
        add(session, in_app=False)  # the user wants no such messages in the list
        session.commit()
    assert set(ids(new_since(start, USER, other))) == {mine, theirs}
    assert ids(new_since(start, USER)) == [mine]
    assert new_since(start, USER).is_complete
