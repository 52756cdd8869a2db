"""What the customers and administrators of a run were told about its orders, compared with the orders' timelines.

Pure functions. An event that a fault has copied under a new id (duplicate_event_faults.py) is a new event for its
receivers: messages about it may arrive, and none is required.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

from notifications.mail_texts import ENGLISH
from qa.chaos.receivers import ReceivedMail, ReceivedWebhook
from qa.support.consistency import Check

MAILED = ("order.confirmed", "order.cancelled", "order.shipped", "order.delivered", "payment.refunded")
DELIVERED = ("order.created", *MAILED)
MOST_MAILS = 2
ID_VERSION = 7  # of the suite's ids; those of copies have another
OLD = "timestamp"  # of a webhook that was sent just before the clock jumped; it is sent again


@dataclass(frozen=True)
class OrderEvent:
    """An entry of an order's timeline, and the user whose order it is."""

    order: str
    user: str
    event: str
    id: str


@dataclass(frozen=True)
class Customer:
    """A customer, and the path and the events of the endpoint; without an endpoint, the path is empty."""

    id: str
    email: str
    path: str = ""
    events: tuple[str, ...] = ()

    def receives(self, event):
        """Whether the endpoint is subscribed to the event."""
        return bool(self.path) and any(
            one in {"*", event} or (one.endswith(".*") and event.startswith(one[:-1])) for one in self.events
        )


def is_copy(event_id):
    """Whether a fault has given the event a new id."""
    return UUID(event_id).version != ID_VERSION


def webhook_checks(events: list[OrderEvent], customers: list[Customer], received: list[ReceivedWebhook]):
    """Every event was received at its customer's endpoint, all attempts of it have the same id, and all are signed."""
    by_user = {one.id: one for one in customers}
    wanted = {
        (by_user[one.user].path, one.id): one
        for one in events
        if one.event in DELIVERED and one.user in by_user and by_user[one.user].receives(one.event)
    }
    wanted = {key: one for key, one in wanted.items() if not is_copy(one.id)}
    verified = [one for one in received if not one.error]
    arrived = {(one.path, one.id) for one in verified if one.is_accepted}
    about = {key: (one.order, one.event) for key, one in wanted.items()}
    bodies = defaultdict(set)
    for one in verified:
        bodies[one.path, one.id].add(one.digest)
    strange = [
        one for one in verified if not is_copy(one.id) and about.get((one.path, one.id)) != (one.order, one.event)
    ]
    return [
        Check("webhooks: no event missing", [_line(one) for key, one in wanted.items() if key not in arrived]),
        Check(
            "webhooks: the id of the event in every attempt, and no event of others",
            sorted({f"{one.order} {one.event} {one.id}" for one in strange}),
        ),
        Check("webhooks: the same body in every attempt", [key[1] for key, found in bodies.items() if len(found) > 1]),
        Check("webhooks: every signature verified", [f"{one.id}: {one.error}" for one in refused(received)]),
    ]


def refused(received):
    """The attempts whose signature is wrong. An old timestamp is none: the clock has jumped meanwhile."""
    return [one for one in received if one.error and OLD not in one.error]


def mail_checks(events: list[OrderEvent], customers: list[Customer], mails: list[ReceivedMail]):
    """Every customer got a mail about each event, at most two of each, and none about anything else."""
    address = {one.id: one.email for one in customers}
    wanted = {
        (address[one.user], one.order, ENGLISH[one.event].subject): one
        for one in events
        if one.event in MAILED and one.user in address
    }
    times, ids = Counter(), defaultdict(set)
    for one in mails:
        if one.order:
            times[one.to, one.order, one.subject] += 1
            ids[one.to, one.order, one.subject].add(one.message_id)
    return [
        Check("mails: none missing", [_line(one) for key, one in wanted.items() if not times[key]]),
        Check(
            f"mails: at most {MOST_MAILS} of each, with the same Message-ID",
            [_mail(key) for key, count in times.items() if count > MOST_MAILS or len(ids[key]) > 1],
        ),
        Check("mails: none about what did not happen", [_mail(key) for key in times.keys() - wanted.keys()]),
    ]


def order_stream_check(events: list[OrderEvent], streams):
    """`streams`: {order: EventStream}. Each has the whole timeline of its order, in its order, and each event once."""
    timelines = defaultdict(list)
    for one in events:
        timelines[one.order].append(one.id)
    wrong = []
    for order, stream in streams.items():
        expected = [(str(number), event_id) for number, event_id in enumerate(timelines[order], start=1)]
        if stream.entries != expected:
            wrong.append(f"{order}: {len(stream.entries)} events of {len(expected)}, ids {_ids(stream)}")
    return Check("streams of orders: the whole timeline, each event once", wrong)


def list_stream_check(expected: dict, streams):
    """`expected` and `streams`: the ids of the notifications of each user, and the EventStream of the user."""
    wrong = []
    for user, stream in streams.items():
        found = Counter(name for _, name in stream.entries)
        wrong += [f"{user}: notification {one} is missing" for one in expected[user] - found.keys()]
        wrong += [f"{user}: notification {one} came {count} times" for one, count in found.items() if count > 1]
    return Check("streams of notifications: none missing, each once", wrong)


def all_events_checks(events: list[OrderEvent], streams):
    """Every event of the timelines is in each stream of all events. One may be in the log twice, at two positions."""
    wanted = {one.id: one for one in events if not is_copy(one.id)}
    missing = {}
    wrong = []
    for stream in streams:
        found = {name for _, name in stream.entries}
        missing |= {event_id: one for event_id, one in wanted.items() if event_id not in found}
        positions = [position(one) for one, _ in stream.entries]
        wrong += [f"{later} after {earlier}" for earlier, later in pairwise(positions) if later <= earlier]
        wrong += [f"{stream.gaps} gaps"] if stream.gaps else []
    return [
        Check("stream of all events: none missing", [_line(one) for one in missing.values()]),
        Check("stream of all events: each position once, in order, without a gap", wrong),
    ]


def position(text):
    """The position that an id of the stream of all events states."""
    offset, _, line = text.partition("-")
    return int(offset), int(line)


def _line(event):
    return f"{event.order} {event.event} {event.id}"


def _mail(key):
    address, order, subject = key
    return f"{order} {subject!r} to {address}"


def _ids(stream):
    return ",".join(one for one, _ in stream.entries[:20])
