"""The two state tables of contract section 4 as data, and the coverage of their rows by an exploration."""

from dataclasses import dataclass

from qa.model.vocabulary import payment_words

ERROR, UNCHANGED = ("an error", ()), (None, ())
ORDER_EVENTS = ("order.created", "order.confirmed", "order.cancelled")


@dataclass(frozen=True)
class Table:
    """A state table: {(status, trigger): all possible outcomes}. An outcome is (becomes, publishes)."""

    name: str
    rows: dict
    also_unchanged: tuple
    """The contract's last row, "any, anything else, or again", as separate rows."""

    @property
    def every_row(self):
        return {row: {UNCHANGED} for row in self.also_unchanged} | self.rows


def _others(rows, statuses, triggers):
    return tuple((status, trigger) for status in statuses for trigger in triggers if (status, trigger) not in rows)


_RESERVATION = {
    (None, "order.created"): {
        ("RESERVED", ("inventory.stock_reserved",)),
        ("FAILED", ("inventory.stock_failed",)),
    },
    ("RESERVED", "order.confirmed"): {("COMMITTED", ("inventory.stock_committed",))},
    ("RESERVED", "order.cancelled"): {("RELEASED", ("inventory.stock_released",))},
    ("COMMITTED", "order.cancelled"): {("RETURNED", ("inventory.stock_released",))},
    (None, "order.cancelled"): {("a tombstone", ())},
    (None, "order.confirmed"): {ERROR},
}
RESERVATION = Table(
    "reservation",
    _RESERVATION,
    _others(_RESERVATION, ("RESERVED", "FAILED", "COMMITTED", "RELEASED", "RETURNED", "a tombstone"), ORDER_EVENTS),
)

REMEMBERED, CAPTURING, VOIDING = "PENDING, cancelled", "AUTHORIZED, confirmed", "AUTHORIZED, cancelled"
CAPTURING_TO_REFUND, REFUNDING = "AUTHORIZED, confirmed, cancelled", "CAPTURED, cancelled"
REFUNDING_PART, REFUNDING_MORE = "CAPTURED, refund requested", "PARTIALLY_REFUNDED, refund requested"
REFUNDING_REST = "PARTIALLY_REFUNDED, cancelled"
PARTLY, FULLY = ("payment.partially_refunded",), ("payment.refunded",)
_PAYMENT = {
    (None, "order.created"): {("PENDING", ())},
    ("PENDING", "approved"): {("AUTHORIZED", ("payment.authorized",))},
    ("PENDING", "declined"): {("FAILED", ("payment.failed",))},
    # The status changes, and the event is published, when the provider has done what the order's event made necessary.
    ("AUTHORIZED", "order.confirmed"): {(CAPTURING, ())},
    (CAPTURING, "captured"): {("CAPTURED", ("payment.captured",))},
    ("AUTHORIZED", "order.cancelled"): {(VOIDING, ())},
    (VOIDING, "voided"): {("VOIDED", ("payment.voided",))},
    ("CAPTURED", "order.cancelled"): {(REFUNDING, ())},
    (REFUNDING, "refunded"): {("REFUNDED", FULLY), (REFUNDING_REST, PARTLY)},
    # What an administrator asks for. A refund of which the outcome comes again changes nothing.
    ("CAPTURED", "refund requested"): {(REFUNDING_PART, ())},
    (REFUNDING_PART, "refund requested"): {(REFUNDING_PART, ())},
    (REFUNDING_PART, "refunded"): {("REFUNDED", FULLY), ("PARTIALLY_REFUNDED", PARTLY), (REFUNDING_MORE, PARTLY)},
    (REFUNDING_PART, "order.cancelled"): {(REFUNDING, ())},
    ("PARTIALLY_REFUNDED", "refund requested"): {(REFUNDING_MORE, ())},
    ("PARTIALLY_REFUNDED", "refunded"): {UNCHANGED},
    ("PARTIALLY_REFUNDED", "order.cancelled"): {(REFUNDING_REST, ())},
    (REFUNDING_MORE, "refund requested"): {(REFUNDING_MORE, ())},
    (REFUNDING_MORE, "refunded"): {
        UNCHANGED,
        ("REFUNDED", FULLY),
        ("PARTIALLY_REFUNDED", PARTLY),
        (REFUNDING_MORE, PARTLY),
    },
    (REFUNDING_MORE, "order.cancelled"): {(REFUNDING_REST, ())},
    (REFUNDING_REST, "refunded"): {UNCHANGED, ("REFUNDED", FULLY), (REFUNDING_REST, PARTLY)},
    (CAPTURING, "order.cancelled"): {(CAPTURING_TO_REFUND, ())},
    (CAPTURING_TO_REFUND, "captured"): {(REFUNDING, ("payment.captured",))},
    ("PENDING", "order.cancelled"): {(REMEMBERED, ())},
    (REMEMBERED, "approved"): {(REMEMBERED, ())},
    (REMEMBERED, "declined"): {("FAILED", ("payment.failed",))},
    (REMEMBERED, "voided"): {("VOIDED", ("payment.voided",))},
    (None, "order.cancelled"): {("a tombstone", ())},
    (None, "order.confirmed"): {ERROR},
}
_CAPTURED = ("CAPTURED", REFUNDING, REFUNDING_PART, "PARTIALLY_REFUNDED", REFUNDING_MORE, REFUNDING_REST, "REFUNDED")
_AUTHORISED = ("AUTHORIZED", CAPTURING, VOIDING, CAPTURING_TO_REFUND, "VOIDED", *_CAPTURED)
_PAYMENT_STATUSES = ("PENDING", REMEMBERED, *_AUTHORISED, "FAILED", "a tombstone")
PAYMENT = Table(
    "payment",
    _PAYMENT,
    (
        *_others(_PAYMENT, _PAYMENT_STATUSES, ORDER_EVENTS),
        # The provider's outcome again, from another instance. A repeated request has the same outcome.
        *((status, "approved") for status in _AUTHORISED),
        *((status, "captured") for status in _CAPTURED),
        *((status, "voided") for status in ("VOIDED", "FAILED")),
        *((status, "declined") for status in ("VOIDED", "FAILED")),
        ("REFUNDED", "refunded"),
    ),
)
TABLES = (RESERVATION, PAYMENT)


@dataclass
class Coverage:
    """The outcomes that were seen for each row of a table."""

    table: Table
    hit: dict

    @classmethod
    def of(cls, table, reports):
        """Collect the outcomes of these explorations."""
        hit = {}
        for report in reports:
            for (was, trigger), outcomes in report.hits[table.name].items():
                seen = hit.setdefault((_status(was), trigger), set())
                seen.update((_status(becomes), publishes) for becomes, publishes in outcomes)
        return cls(table, hit)

    @property
    def missing(self):
        """Outcomes of the contract that were not seen."""
        return [
            (*row, outcome)
            for row, outcomes in self.table.every_row.items()
            for outcome in sorted(outcomes - self.hit.get(row, set()), key=str)
        ]

    @property
    def unexpected(self):
        """Outcomes that were seen but are not in the contract."""
        return [
            (*row, outcome)
            for row, outcomes in self.hit.items()
            for outcome in sorted(outcomes - self.table.every_row.get(row, set()), key=str)
        ]

    def __str__(self):
        rows = self.table.every_row
        outcomes = sum(map(len, rows.values()))
        text = f"{self.table.name} table: {len(rows)} rows, {outcomes - len(self.missing)} of {outcomes} outcomes seen"
        return (
            text
            + "".join(f"\n  NEVER SEEN: {each}" for each in self.missing)
            + "".join(f"\n  NOT IN THE CONTRACT: {each}" for each in self.unexpected)
        )


def _status(was):
    """Return the contract's name for a status: of a reservation, or of a payment as a tuple of its columns."""
    if isinstance(was, tuple):
        was = payment_words(was)
    return "a tombstone" if was == "CANCELLED_BEFORE" else was
