"""Each check of what customers and administrators were told fails on data that violates just it."""

from dataclasses import replace
from types import SimpleNamespace
from uuid import uuid4

import pytest

from contracts.ids import new_id
from qa.chaos import told
from qa.chaos.receivers import ReceivedMail, ReceivedWebhook
from qa.chaos.told import Customer, OrderEvent

AYSE = Customer("ayse", "ayse@example.com", "/1", ("order.*",))
MEHMET = Customer("mehmet", "mehmet@example.com")
CUSTOMERS = [AYSE, MEHMET]
ORDER, OTHER = str(new_id()), str(new_id())
KINDS = ("order.created", "inventory.stock_reserved", "payment.authorized", "order.confirmed")
SUBJECT = "Your order is confirmed"


@pytest.fixture
def events():
    return [
        OrderEvent(order, user, kind, str(new_id()))
        for order, user in ((ORDER, "ayse"), (OTHER, "mehmet"))
        for kind in KINDS
    ]


@pytest.fixture
def webhooks(events):
    """The first attempt of each failed."""
    found = []
    for one in events:
        if one.user == "ayse" and one.event.startswith("order."):
            accepted = ReceivedWebhook("/1", one.id, f"digest of {one.id}", one.event, ORDER, is_accepted=True)
            found += [replace(accepted, is_accepted=False), accepted]
    return found


@pytest.fixture
def mails():
    """One of them came twice."""
    first = ReceivedMail("ayse@example.com", SUBJECT, "<1@localhost>", ORDER)
    second = ReceivedMail("mehmet@example.com", SUBJECT, "<2@localhost>", OTHER)
    return [first, second, second, ReceivedMail("ayse@example.com", "Welcome", "<3@localhost>", "")]


def broken(checks):
    return {check.name: check.ids for check in checks if check.ids}


def stream(entries, gaps=0):
    return SimpleNamespace(entries=entries, gaps=gaps)


class TestWebhooks:
    def test_correct_data_passes(self, events, webhooks):
        copy = OrderEvent(ORDER, "ayse", "order.confirmed", str(uuid4()))
        assert not broken(told.webhook_checks([*events, copy], CUSTOMERS, webhooks))
        assert not broken(told.webhook_checks(events, CUSTOMERS, [*webhooks, replace(webhooks[0], id=str(uuid4()))]))

    def test_one_that_is_missing(self, events, webhooks):
        assert broken(told.webhook_checks(events, CUSTOMERS, webhooks[:-1])) == {
            "webhooks: no event missing": [f"{ORDER} order.confirmed {events[3].id}"]
        }

    def test_one_whose_second_attempt_has_another_id(self, events, webhooks):
        other = str(new_id())
        found = broken(told.webhook_checks(events, CUSTOMERS, [*webhooks, replace(webhooks[1], id=other)]))
        assert found == {
            "webhooks: the id of the event in every attempt, and no event of others": [f"{ORDER} order.created {other}"]
        }

    def test_one_of_another_customer(self, events, webhooks):
        foreign = replace(webhooks[0], id=events[-1].id, order=OTHER, event="order.confirmed")
        assert list(broken(told.webhook_checks(events, CUSTOMERS, [*webhooks, foreign]))) == [
            "webhooks: the id of the event in every attempt, and no event of others"
        ]

    def test_one_that_nobody_subscribed_to(self, events, webhooks):
        unwanted = replace(webhooks[0], id=events[1].id, event="inventory.stock_reserved")
        assert broken(told.webhook_checks(events, CUSTOMERS, [*webhooks, unwanted]))

    def test_one_whose_body_has_changed(self, events, webhooks):
        changed = replace(webhooks[0], digest="another")
        assert broken(told.webhook_checks(events, CUSTOMERS, [*webhooks, changed])) == {
            "webhooks: the same body in every attempt": [webhooks[0].id]
        }

    def test_a_wrong_signature(self, events, webhooks):
        wrong = replace(webhooks[0], error="No matching signature found")
        assert broken(told.webhook_checks(events, CUSTOMERS, [*webhooks, wrong])) == {
            "webhooks: every signature verified": [f"{wrong.id}: No matching signature found"]
        }
        early = replace(wrong, error="Message timestamp too new")
        assert not broken(told.webhook_checks(events, CUSTOMERS, [*webhooks, early]))


class TestMails:
    def test_correct_data_passes(self, events, mails):
        assert not broken(told.mail_checks(events, CUSTOMERS, mails))

    def test_one_that_is_missing(self, events, mails):
        assert broken(told.mail_checks(events, CUSTOMERS, mails[1:])) == {
            "mails: none missing": [f"{ORDER} order.confirmed {events[3].id}"]
        }

    def test_a_third_one(self, events, mails):
        assert broken(told.mail_checks(events, CUSTOMERS, [*mails, mails[1]])) == {
            "mails: at most 2 of each, with the same Message-ID": [f"{OTHER} {SUBJECT!r} to mehmet@example.com"]
        }

    def test_a_second_one_with_another_message_id(self, events, mails):
        again = replace(mails[0], message_id="<4@localhost>")
        assert list(broken(told.mail_checks(events, CUSTOMERS, [*mails, again]))) == [
            "mails: at most 2 of each, with the same Message-ID"
        ]

    def test_one_to_another_customer(self, events, mails):
        wrong = replace(mails[0], to="mehmet@example.com")
        assert list(broken(told.mail_checks(events, CUSTOMERS, [*mails, wrong]))) == [
            "mails: none about what did not happen"
        ]


class TestStreams:
    def test_the_whole_timeline_of_an_order_passes(self, events):
        entries = [(str(number), one.id) for number, one in enumerate(events[:4], start=1)]
        assert not told.order_stream_check(events, {ORDER: stream(entries)}).ids
        for wrong in (entries[:-1], entries[1:], [*entries, entries[-1]], [entries[1], entries[0], *entries[2:]]):
            assert told.order_stream_check(events, {ORDER: stream(wrong)}).ids

    def test_notifications(self):
        expected = {"ayse": {"one", "two"}}
        assert not told.list_stream_check(expected, {"ayse": stream([("1", "one"), ("2", "two")])}).ids
        assert told.list_stream_check(expected, {"ayse": stream([("1", "one")])}).ids == [
            "ayse: notification two is missing"
        ]
        twice = stream([("1", "one"), ("2", "two"), ("2", "two")])
        assert told.list_stream_check(expected, {"ayse": twice}).ids == ["ayse: notification two came 2 times"]

    def test_all_events(self, events):
        entries = [(f"7-{number}", one.id) for number, one in enumerate(events)]
        again = [*entries, ("8-0", events[0].id)]
        copy = OrderEvent(ORDER, "ayse", "payment.authorized", str(uuid4()))
        assert not broken(told.all_events_checks([*events, copy], [stream(again)]))
        missing = told.all_events_checks(events, [stream(entries), stream(entries[:-1])])
        assert broken(missing) == {"stream of all events: none missing": [f"{OTHER} order.confirmed {events[-1].id}"]}
        for wrong in (stream([*entries, entries[-1]]), stream([*entries, ("6-9", "another")]), stream(entries, gaps=1)):
            assert list(broken(told.all_events_checks(events, [wrong]))) == [
                "stream of all events: each position once, in order, without a gap"
            ]
