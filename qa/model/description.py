"""The steps of a path in words."""

from qa.model import vocabulary as words
from qa.model.records import PERSON

PRODUCTS = "ABCD"


def describe(scenario, said):
    """Say what happened; `said` is (what, which order, about which message or answer, what it would write)."""
    verb, number, what, *write = said
    if number == PERSON:
        product, delta = scenario.adjustments[what]
        return f"{verb} {PRODUCTS[product]} by {delta:+d}"
    if isinstance(what, int):
        event, returned = words.MESSAGES[what]
        what = event + " (returned)" * returned
    return f"order {number + 1}: {verb} {what}" + "".join(f" -> {_plain(each)}" for each in write)


def _plain(write):
    """What a transaction would write: of orders, inventory or payments."""
    if isinstance(write, str):
        return write
    if not isinstance(write[0], tuple):  # a payment's status, and whether its cancellation is remembered
        return f"{write[0]}, cancelled" if write[0] == "PENDING" and write[1] else str(write[0])
    if len(write) == 2 and isinstance(write[0][1], tuple):  # a reservation, and stock levels
        (status, _), balances = write
        levels = (
            f"{PRODUCTS[product]}: {on_hand} on hand, {reserved} reserved" for product, (on_hand, reserved) in balances
        )
        return "; ".join([str(status), *levels])
    return ", ".join(f"{field} {value}" for field, value in write)
