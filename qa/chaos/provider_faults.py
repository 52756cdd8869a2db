"""A payment provider that is slow, hangs, loses its answers or fails, for one order of the load in ten or for all.

The orders' `payment_method` tells the simulated provider what to do (contract section 4). The probes' orders have none,
so they must be decided as fast as ever while one in ten misbehaves. While all do, the provider is what is slow.
"""

import random
from contextlib import contextmanager

from qa.chaos.slow_faults import NOTHING, Effect, SlowFault

ONE_IN_TEN, ALL = 10, 1  # one in so many orders
HANGS = "pm_hangs"
SAGA_SECONDS = 30.0  # the deadline of orders, in which those that hang keep the provider's pool busy


def _kind(words, method, every):
    """The provider does this for one in `every` orders of the load."""
    who, scope = ("all", "payments") if every == ALL else ("one in ten", NOTHING)

    def plan(sandbox, _chance: random.Random) -> Effect:
        @contextmanager
        def broken():
            with sandbox.load.payment_methods.use(method, every) as count:
                yield lambda: f"{count()} orders" if count() else ""

        return Effect(
            f"{method} for {who}",
            frozenset({"payments"} if every == ALL else ()),
            broken,
            exclusive=("payment methods",) if every == ALL else (),
            lingers=SAGA_SECONDS if every == ALL and method == HANGS else 0.0,
        )

    return SlowFault(f"the provider {words} for {who}", plan, scope)


FAULTS = [
    _kind("hangs", HANGS, ONE_IN_TEN),
    _kind("is slow", "pm_slow_3000", ONE_IN_TEN),
    _kind("loses its answers", "pm_answer_lost", ONE_IN_TEN),
    _kind("fails at first", "pm_error_2", ONE_IN_TEN),
    _kind("hangs", HANGS, ALL),
    _kind("is slow", "pm_slow_3000", ALL),
    _kind("loses its answers", "pm_answer_lost", ALL),
    _kind("fails at first", "pm_error_2", ALL),
    _kind("fails to capture at first", "pm_capture_fails_2", ALL),
    _kind("fails to refund at first", "pm_refund_fails_2", ALL),
]
