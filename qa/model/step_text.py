"""Formats the steps of an explored path as text."""

from qa.model import vocabulary as words
from qa.model.records import PERSON

PRODUCTS = "ABCD"


def describe(scenario, label):
    """Describe a step; `label` is (verb, order number, message or provider outcome, rows that are
    written). For a stock adjustment the third value is its index.
    """
    verb, number, what, *write = label
    if number == PERSON:
        product, delta = scenario.adjustments[what]
        return f"{verb} {PRODUCTS[product]} by {delta:+d}"
    if isinstance(what, int):
        what = words.name_of(what)
    return f"order {number + 1}: {verb} {what}" + "".join(f" -> {_plain(each)}" for each in write)


def _plain(write):
    """Format what a transaction of orders, inventory or payments writes."""
    if isinstance(write, str):
        return write
    if isinstance(write, words.PaymentRow):
        return words.payment_words(write)
    if len(write) == 2 and isinstance(write[0][1], tuple):  # a reservation, and stock levels
        (status, _), balances = write
        levels = (
            f"{PRODUCTS[product]}: {on_hand} on hand, {reserved} reserved" for product, (on_hand, reserved) in balances
        )
        return "; ".join([str(status), *levels])
    return ", ".join(f"{field} {value}" for field, value in write)
