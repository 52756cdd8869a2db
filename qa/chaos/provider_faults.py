"""A payment provider that is slow, hangs, loses its answers or fails, for one order of the load in ten or for all.

The orders' `payment_method` tells the simulated provider what to do (contract section 4). The probes' orders have none,
so they must be decided as fast as ever while one in ten misbehaves. While all do, the provider is what is slow.
"""

import random
from contextlib import contextmanager

from qa.chaos.slow_faults import NOTHING, Effect, SlowFault

ONE_IN_TEN = 0.1
HANGS = "pm_hangs"
SAGA_SECONDS = 30.0  # the deadline of orders, in which those that hang keep the provider's pool busy


def behaviour(method, share):
    """The provider does this for a share of the load's orders."""
    affects = frozenset({"payments"}) if share == 1 else frozenset()

    def plan(sandbox, _chance: random.Random) -> Effect:
        @contextmanager
        def broken():
            with sandbox.load.paying_with(method, share) as count:
                yield lambda: f"{count()} orders" if count() else ""

        lingers = SAGA_SECONDS if share == 1 and method == HANGS else 0.0
        return Effect(f"{method} for {share:.0%}", affects, broken, exclusive=("payment methods",), lingers=lingers)

    return plan


def _kind(words, method, share):
    who, scope = ("all", "payments") if share == 1 else ("one in ten", NOTHING)
    return SlowFault(f"the provider {words} for {who}", behaviour(method, share), scope)


FAULTS = [
    _kind("hangs", HANGS, ONE_IN_TEN),
    _kind("is slow", "pm_slow_3000", ONE_IN_TEN),
    _kind("loses its answers", "pm_answer_lost", ONE_IN_TEN),
    _kind("fails at first", "pm_error_2", ONE_IN_TEN),
    _kind("hangs", HANGS, 1.0),
    _kind("is slow", "pm_slow_3000", 1.0),
    _kind("loses its answers", "pm_answer_lost", 1.0),
    _kind("fails at first", "pm_error_2", 1.0),
    _kind("fails to capture at first", "pm_capture_fails_2", 1.0),
    _kind("fails to refund at first", "pm_refund_fails_2", 1.0),
]
