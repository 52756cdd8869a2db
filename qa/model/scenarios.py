"""The scenarios that every test run explores, and those of the long form.

No two of a list have a state in common: their orders or their initial stock differ. (An exploration with an inbox sees
only states that the one without an inbox also sees, so they are not counted.)
"""

from dataclasses import replace

from orders.saga import Command
from qa.model.scenario import ALL_LEFT, APPROVED, DECLINED, OrderSpec, Scenario

USER, ADMIN, EXPIRE = Command.CANCEL_BY_USER, Command.CANCEL_BY_ADMIN, Command.EXPIRE
SHIP, DELIVER = Command.SHIP, Command.DELIVER
ALL = (USER, ADMIN, EXPIRE, SHIP, DELIVER)
EITHER = (APPROVED, DECLINED)
ONE_A, TWO_A = ((0, 1),), ((0, 2),)


def order_of(*lines, may=(), provider=(APPROVED,), refunds=()):
    """Return an order of these lines, with the commands `may`, the outcomes `provider`, and the refunds."""
    return OrderSpec(tuple(lines), frozenset(may), tuple(provider), tuple(refunds))


def _scarce(one, two):
    """Order 1 wants one A and one B, order 2 two A and one B. The stock, two A and one B, is enough for one order."""
    return {"orders": (order_of((0, 1), (1, 1), **one), order_of((1, 1), (0, 2), **two)), "stock": (2, 1)}


def _with_inbox(scenario):
    return replace(scenario, name=f"{scenario.name}, inbox", inbox=True)


STRANGER = Scenario(
    "foreign events about an unknown order",
    orders=(OrderSpec(ONE_A, outcomes=EITHER, foreign=True),),
    stock=(1,),
    adjustments=((0, -1),),
)
NOTHING_THERE = Scenario(
    "a product without a stock record", orders=(order_of((0, 1), (1, 1), may=(USER,)),), stock=(1, None)
)
ONE_ORDER = Scenario(
    "one order, every command, either provider outcome, three workers",
    orders=(order_of((0, 2), may=ALL, provider=EITHER),),
    stock=(2,),
    workers=3,
)
RELAY = Scenario(
    "one order, the outbox relay step by step, declined",
    orders=(order_of((0, 1), provider=EITHER),),
    stock=(1,),
    relay=True,
)
PEOPLE = Scenario(
    "two orders, stock adjustments",
    orders=(order_of((0, 2)), order_of((0, 1), provider=EITHER)),
    stock=(2,),
    adjustments=((0, 1), (0, -1)),
)
SCARCE = Scenario("two orders, two products, scarce", **_scarce({"may": (USER,)}, {"provider": EITHER}))
TWINS = Scenario("two equal orders, stock for one", orders=(order_of((0, 1)),) * 2, stock=(1,))

REFUNDS = Scenario(
    "one order, an administrator refunds parts and the rest, the user cancels",
    orders=(order_of((0, 1), may=(USER,), refunds=(1, 2, ALL_LEFT)),),
    stock=(1,),
)

SHORT = (STRANGER, NOTHING_THERE, ONE_ORDER, RELAY, PEOPLE, SCARCE, TWINS, REFUNDS, _with_inbox(TWINS))

LONG = (
    STRANGER,
    NOTHING_THERE,
    ONE_ORDER,
    replace(
        RELAY,
        name="one order, the outbox relay step by step, cancelled or not",
        orders=(order_of((0, 1), may=(USER,), provider=EITHER),),
    ),
    replace(
        PEOPLE,
        name="two orders, stock adjustments, the user cancels",
        orders=(order_of((0, 2), may=(USER,)), order_of((0, 1), provider=EITHER)),
    ),
    replace(
        SCARCE,
        name="two orders, two products, scarce; the user or the deadline cancels, the shop ships",
        **_scarce({"may": (USER, SHIP), "provider": EITHER}, {"may": (EXPIRE,), "provider": EITHER}),
    ),
    replace(
        TWINS,
        name="two equal orders, stock for one, the users cancel",
        orders=(order_of((0, 1), may=(USER,), provider=EITHER),) * 2,
    ),
    Scenario("three equal orders, stock for two", orders=(order_of((0, 1)),) * 3, stock=(2,)),
    REFUNDS,
)
"""Millions of states: they take minutes and gigabytes."""

INBOX = tuple(_with_inbox(scenario) for scenario in (SCARCE, TWINS))
"""Explored by the long form too, but not counted."""
