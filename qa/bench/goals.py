"""The goals. Each is a bound on a figure, or on a ratio of two figures of the same round."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from qa.bench.growth import COST
from qa.bench.memory import SLOPE

SETTLED = ("suite: settled/s, 32 clients", "suite: settled/s, 128 clients")
READS = ("suite: GET /orders/{id}/s", "suite: GET /products/{id}/s")


@dataclass(frozen=True)
class Goal:
    """`of` returns a round's value, or raises KeyError if the round lacks a figure.

    `can_be_met` tells by these figures whether the goal is possible on this machine; if not, the verdict is `unless`.
    """

    what: str
    of: Callable
    bound: float
    unit: str = ""
    at_most: bool = False
    can_be_met: Callable = lambda _one: True
    unless: str = ""

    @property
    def text(self):
        return f"{'≤' if self.at_most else '≥'} {self.bound:,g}{' ' if self.unit else ''}{self.unit}"

    def is_met_by(self, value):
        return value <= self.bound if self.at_most else value >= self.bound


def figure(name):
    return lambda one: one[name]


def least(names):
    return lambda one: min(one[name] for name in names)


def ratio(names, base):
    """The smallest of some figures, divided by another one of the same round."""
    return lambda one: min(one[name] for name in names) / one[base]


def _most_memory(one):
    return max(mib for name, mib in one.items() if name.startswith("memory at rest: "))


def _most_growth(one):
    return max(slope for name, slope in one.items() if name.startswith(SLOPE))


def _had_a_free_core(one):
    return one["gateways: cores left idle, one"] >= 1


GOALS = (
    Goal("settled orders, the lesser of 32 and 128 clients / floor behind HTTP",
         ratio(SETTLED, "floor behind HTTP: settled/s"), 0.65),
    Goal("the same / floor without HTTP", ratio(SETTLED, "floor: settled/s"), 0.65),
    Goal("the same / FastStream", ratio(SETTLED, "FastStream: settled/s"), 3),
    Goal("settled orders, the lesser of 32 and 128 clients", least(SETTLED), 150, "a second"),
    Goal("accept p99 at half of that rate", figure("suite: accept p99 ms at half"), 50, "ms", at_most=True),
    Goal("settle p99 at half", figure("suite: settle p99 ms at half"), 500, "ms", at_most=True),
    Goal("settle p99.9 at half", figure("suite: settle p99.9 ms at half"), 2000, "ms", at_most=True),
    Goal("GET /orders/{id} / a constant by unmodified Nameko",
         ratio(READS[:1], "unmodified Nameko: a constant/s"), 0.8),
    Goal("GET /products/{id} / a constant by unmodified Nameko",
         ratio(READS[1:], "unmodified Nameko: a constant/s"), 0.8),
    Goal("the lesser GET / a GET by RPC of unmodified Nameko", ratio(READS, "unmodified Nameko: GET by RPC/s"), 5),
    Goal("outbox relay", figure("suite: relay events/s"), 5000, "confirmed events/s"),
    Goal("commit to broker p99 under load", figure("suite: commit to broker p99 ms"), 100, "ms", at_most=True),
    Goal("RPC round trip, one at a time / unmodified Nameko",
         ratio(["suite: RPC/s, one at a time"], "unmodified Nameko: RPC/s, one at a time"), 5),
    Goal("memory at rest, the largest service", _most_memory, 80, "MiB", at_most=True),
    Goal("growth of memory under load, the service that grows most", _most_growth, 2, "MiB an hour", at_most=True),
    Goal("processor time of an order, 2,000,000 stored / 10,000 stored",
         ratio([f"{COST}, many stored"], f"{COST}, few stored"), 1.1, at_most=True),
    Goal("statements that look at more rows in a shop 20 times as large", figure("plans: statements that grow"), 0,
         at_most=True),
    Goal("GET /orders/{id}, two gateways / one, where a core is free",
         ratio(["gateways: GET /orders/{id}/s, two"], "gateways: GET /orders/{id}/s, one"), 1.6,
         can_be_met=_had_a_free_core, unless="no core free"),
)  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """The median and the extremes over the rounds."""

    median: float
    least: float
    most: float
    runs: int

    def __str__(self):
        if self.runs == 1:
            return number(self.median)
        return f"{number(self.median)} ({number(self.least)} to {number(self.most)})"


def number(value):
    """Format with three significant digits."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values):
    """Return the Spread of a figure over the rounds; None if no round has it."""
    values = list(values)
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


def figures(rounds):
    """Return {figure: Spread} over all rounds, in the order of their first measurement."""
    names = list(dict.fromkeys(name for one in rounds for name in one))
    return {name: spread(one[name] for one in rounds if name in one) for name in names}


def judge(rounds):
    """Yield (goal, Spread or None, verdict). The median decides whether a goal is met."""
    for goal in GOALS:
        values, could_be_met = [], False
        for one in rounds:
            try:
                values.append(goal.of(one))
                could_be_met |= goal.can_be_met(one)
            except (KeyError, ValueError):
                continue
        yield goal, (found := spread(values)), _verdict(goal, found, could_be_met)


def _verdict(goal, found, could_be_met):
    if found is None:
        return "not measured"
    if goal.is_met_by(found.median):
        return "met"
    return "NOT met" if could_be_met else goal.unless
