"""One run: rounds of faults under load, and after each round rest and a verdict.

All chance comes from one seed. The threads of clients and faults still meet by accident, so that a seed repeats the
plan of a run (which faults, in which order, how long, against whom), not each interleaving.
"""

import itertools
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import psycopg2
from amqp.exceptions import AMQPError
from sqlalchemy.exc import DBAPIError

from qa.chaos.faults import NotStruck
from qa.chaos.verdict import await_decided, judge, story
from qa.support.consistency import report

DECIDED_WITHIN = 30.0  # seconds after the last fault has healed
# What a fault runs into when another one has taken away what it needs.
UNREACHABLE = (NotStruck, OSError, AMQPError, psycopg2.Error, DBAPIError, TimeoutError)
LONGEST_FAULT = 150.0  # with all its waits for servers that others have in hand


@dataclass
class Struck:
    """One fault that was dealt. Times are time.time()."""

    kind: str
    began: float
    what: str = ""
    ended: float = 0.0
    missed: bool = False
    failed: bool = False

    def line(self):
        note = " (missed)" if self.missed else " (FAILED)" if self.failed else ""
        span = f"{_clock(self.began)} to {_clock(self.ended) if self.ended else 'now'}"
        return f"{span}  {self.kind}{note}: {self.what}"


@dataclass
class Plan:
    """What a run is to do. It ends when it has lasted `seconds`, and has had its faults, each kind and its orders; or
    when it has dealt three times as many faults as that should take.
    """

    faults: int = 0
    orders: int = 0
    seconds: float = 0.0
    each: int = 0  # how often every kind is to strike at least
    per_round: int = 40
    pause: float = 3.0  # seconds from one fault to the next, on average
    at_once: int = 4
    kinds: list = field(default_factory=list)

    @property
    def most(self):
        """So many faults are dealt and no more, however many of them found nothing to strike."""
        return 3 * max(self.faults, self.each * len(self.kinds), self.per_round)


@dataclass
class Outcome:
    """What a run saw."""

    seed: int
    began: float
    seconds: float = 0.0
    orders: int = 0
    journal: list = field(default_factory=list)
    checks: dict = field(default_factory=dict)  # name -> ids, over all rounds
    recoveries: list = field(default_factory=list)  # seconds from the last healing to the last decision
    answers: Counter = field(default_factory=Counter)
    commands: Counter = field(default_factory=Counter)
    not_staged: list = field(default_factory=list)  # kinds that this machine cannot have
    stories: list = field(default_factory=list)
    problems: list = field(default_factory=list)  # what is wrong beside the invariants

    @property
    def struck(self):
        return Counter(one.kind for one in self.journal if not one.missed and not one.failed)

    @property
    def sound(self):
        return not self.problems and not any(self.checks.values())


class Run:
    """Deals faults to an arena with a load on it. `workers` must outlive the arena: a server that a fault starts ends
    with the thread that started it."""

    def __init__(self, arena, load, plan: Plan, seed: int, workers: ThreadPoolExecutor, say=print):
        self._arena, self._load, self._plan, self._say = arena, load, plan, say
        self._chance = random.Random(seed)
        self._workers, self._hands = workers, threading.Semaphore(plan.at_once)
        self.outcome = Outcome(seed, time.time())
        self._deck = self._shuffled()

    def run(self) -> Outcome:
        """All rounds; the load has ended after it."""
        began = time.monotonic()
        self._load.start()
        try:
            for number in itertools.count(1):
                self._round(number)
                if not self.outcome.sound or self._is_enough(time.monotonic() - began):
                    break
                if len(self.outcome.journal) >= self._plan.most and time.monotonic() - began >= self._plan.seconds:
                    self.outcome.problems.append("the run did not get all its faults or orders")
                    break
        finally:
            self._load.stop()
        self.outcome.seconds = time.monotonic() - began
        self.outcome.orders = len(self._load.accepted)
        self.outcome.answers = Counter(self._load.answers)
        self.outcome.commands = Counter(command for one in self._load.accepted for command in one.done)
        return self.outcome

    def _is_enough(self, seconds):
        plan, struck = self._plan, self.outcome.struck
        return (
            seconds >= plan.seconds
            and struck.total() >= plan.faults
            and len(self._load.accepted) >= plan.orders
            and all(struck[kind.name] >= plan.each for kind in plan.kinds)
        )

    # One round

    def _round(self, number):
        began = time.time()
        self._load.resume()
        dealt = [self._deal() for _ in range(self._plan.per_round)]
        for future in dealt:
            future.result(timeout=LONGEST_FAULT)
        healed_at = time.monotonic()
        self._rest(number, began, healed_at)

    def _deal(self):
        """Start the next fault when its time has come and one of the hands is free."""
        if self._chance.random() > 0.25:  # else at once with the one before
            time.sleep(self._chance.uniform(0.4, 2.2) * self._plan.pause)
        self._hands.acquire()
        fault = next(self._deck)
        struck = Struck(fault.name, time.time())
        self.outcome.journal.append(struck)
        return self._workers.submit(self._strike, fault, struck, random.Random(self._chance.random()))

    def _strike(self, fault, struck, chance):
        try:
            struck.what = fault.strike(self._arena, chance).removeprefix(f"{fault.name}: ")
        except UNREACHABLE as reason:
            struck.what, struck.missed = f"{type(reason).__name__}: {reason}".strip().splitlines()[0], True
        except Exception as error:  # noqa: BLE001 - a fault that fails must not end the run, but it is a finding
            struck.what, struck.failed = f"{type(error).__name__}: {error}", True
            self.outcome.problems.append(f"a fault failed: {struck.kind}: {struck.what}")
        finally:
            struck.ended = time.time()
            self._hands.release()
        self._say(f"  {struck.line()}")

    def _shuffled(self):
        """All kinds, again and again, in a new order each time. With `each`, those that are still due come first."""
        while True:
            due = [kind for kind in self._plan.kinds if self.outcome.struck[kind.name] < self._plan.each]
            kinds = list(due or self._plan.kinds)
            self._chance.shuffle(kinds)
            yield from kinds

    def _rest(self, number, began, healed_at):
        """Heal, wait, count."""
        if not self._load.pause(90):
            self.outcome.problems.append("requests were still unanswered 90 s after the last fault had healed")
        recovery = await_decided(self._arena, healed_at)
        self.outcome.recoveries.append(recovery)
        if recovery > DECIDED_WITHIN:
            self.outcome.problems.append(
                f"round {number}: the last order was decided {recovery:.1f} s after the last fault had healed"
            )
        try:
            self._arena.wait_ready(60)
        except Exception as error:  # noqa: BLE001 - told with all the rest
            self.outcome.problems.append(f"the suite is not ready again: {error}")
        checks = judge(self._arena, self._load)
        rested = time.monotonic() - healed_at
        for check in checks:
            self.outcome.checks[check.name] = check.ids
        self._say(
            f"round {number}: {len(self._load.accepted)} orders, {self.outcome.struck.total()} faults, all decided "
            f"{recovery:.1f} s and at rest {rested:.1f} s after the last fault healed; "
            f"{os.getloadavg()[0]:.1f} load; {'sound' if self.outcome.sound else 'NOT SOUND'}"
        )
        if not self.outcome.sound:
            self._say(report(checks))
            self._tell(checks, began)

    def _tell(self, checks, began):
        """The orders that a broken check names, with their timelines and the faults of their time."""
        named = list(dict.fromkeys(word for check in checks for key in check.ids for word in key.split()))
        asked = {one.order_id: one for one in self._load.asked if one.order_id}
        for order in [word for word in named if word in asked][:3]:
            one = asked[order]
            told = [story(self._arena, order), f"    asked for at {_clock(one.began)}, accepted {_clock(one.answered)}"]
            told += [f"    {struck.line()}" for struck in self.outcome.journal if self._touches(struck, one)]
            self.outcome.stories.append("\n".join(told))
        if not self.outcome.stories:
            told = [f"    {struck.line()}" for struck in self.outcome.journal if struck.began >= began]
            self.outcome.stories.append("\n".join(["  the faults of this round:", *told]))

    def _touches(self, struck, one):
        """Could this fault have to do with that order? Its saga may take as long as its deadline, and longer."""
        return struck.began < one.answered + 90 and (not struck.ended or struck.ended > one.began - 15)


def _clock(at):
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"
