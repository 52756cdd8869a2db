"""Which worlds are explored: in every test run, and in the long form.

No two of a list can have a state in common: their orders ask for other things, or the stock is another at first. (An
exploration with an inbox sees only states that the same one without it sees too, so those are not counted.)
"""

from dataclasses import replace

from orders.saga import Command
from qa.model.scenario import APPROVED, DECLINED, Asked, Scenario

USER, ADMIN, EXPIRE = Command.CANCEL_BY_USER, Command.CANCEL_BY_ADMIN, Command.EXPIRE
SHIP, DELIVER = Command.SHIP, Command.DELIVER
ALL = (USER, ADMIN, EXPIRE, SHIP, DELIVER)
EITHER = (APPROVED, DECLINED)
ONE_A, TWO_A = ((0, 1),), ((0, 2),)


def asks(*lines, may=(), provider=(APPROVED,)):
    """An order of these lines, what may be commanded about it, and what the provider may answer."""
    return Asked(tuple(lines), frozenset(may), tuple(provider))


def _scarce(one, two):
    """Order 1 wants an A and a B, order 2 a B and two A; there are two A and one B: only one can have its way."""
    return {"orders": (asks((0, 1), (1, 1), **one), asks((1, 1), (0, 2), **two)), "stock": (2, 1)}


def _with_inbox(scenario):
    return replace(scenario, name=f"{scenario.name}, inbox", inbox=True)


STRANGER = Scenario(
    "a stranger's events about an order that never was",
    orders=(Asked(ONE_A, answers=EITHER, foreign=True),),
    stock=(1,),
    adjustments=((0, -1),),
)
NOTHING_THERE = Scenario(
    "a product without a stock record", orders=(asks((0, 1), (1, 1), may=(USER,)),), stock=(1, None)
)
ONE_ORDER = Scenario(
    "one order, every command, either answer, three workers",
    orders=(asks((0, 2), may=ALL, provider=EITHER),),
    stock=(2,),
    workers=3,
)
RELAY = Scenario(
    "one order, the outbox relay step by step, declined",
    orders=(asks((0, 1), provider=EITHER),),
    stock=(1,),
    relay=True,
)
PEOPLE = Scenario(
    "two orders, a person takes and brings",
    orders=(asks((0, 2)), asks((0, 1), provider=EITHER)),
    stock=(2,),
    adjustments=((0, 1), (0, -1)),
)
SCARCE = Scenario("two orders, two products, scarce", **_scarce({"may": (USER,)}, {"provider": EITHER}))
TWINS = Scenario("two equal orders, stock for one", orders=(asks((0, 1)),) * 2, stock=(1,))

SHORT = (STRANGER, NOTHING_THERE, ONE_ORDER, RELAY, PEOPLE, SCARCE, TWINS, _with_inbox(TWINS))

LONG = (
    STRANGER,
    NOTHING_THERE,
    ONE_ORDER,
    replace(
        RELAY,
        name="one order, the outbox relay step by step, cancelled or not",
        orders=(asks((0, 1), may=(USER,), provider=EITHER),),
    ),
    replace(
        PEOPLE,
        name="two orders, a person takes and brings, the user cancels",
        orders=(asks((0, 2), may=(USER,)), asks((0, 1), provider=EITHER)),
    ),
    replace(
        SCARCE,
        name="two orders, two products, scarce; the user or the deadline cancels, the shop ships",
        **_scarce({"may": (USER, SHIP), "provider": EITHER}, {"may": (EXPIRE,), "provider": EITHER}),
    ),
    replace(
        TWINS,
        name="two equal orders, stock for one, the users cancel",
        orders=(asks((0, 1), may=(USER,), provider=EITHER),) * 2,
    ),
    Scenario("three equal orders, stock for two", orders=(asks((0, 1)),) * 3, stock=(2,)),
)
"""Millions of states: minutes and gigabytes."""

INBOX = tuple(_with_inbox(scenario) for scenario in (SCARCE, TWINS))
"""Explored in the long form as well, but not counted."""
