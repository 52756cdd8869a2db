"""One run: rounds of faults under load; after each round the load pauses and the invariants are checked.

All random choices come from one seed. The timing of threads still varies, so a seed repeats the plan of a run (which
faults, in which order, how long, on which targets), but not each interleaving.
"""

import itertools
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import psycopg2
from amqp.exceptions import AMQPError
from sqlalchemy.exc import DBAPIError

from qa.chaos.faults import FaultNotInjected
from qa.chaos.isolation import Isolation
from qa.chaos.verdict import await_decided, judge, order_history
from qa.support.consistency import report

# Seconds, on a machine that runs nothing else; a plan can multiply them.
DECIDED_WITHIN = 30.0  # after the last fault has healed
ANSWERED_WITHIN = 90.0  # the requests that are open then
READY_WITHIN = 60.0
AT_REST_WITHIN = 90.0
TOLD_WITHIN = 40.0  # then: longer than the lease of a webhook or a mail whose process was killed
LONGEST_FAULT = 150.0  # including its waits for servers that other faults hold
# Errors of a fault whose target is down because of another fault.
UNREACHABLE = (FaultNotInjected, OSError, AMQPError, psycopg2.Error, DBAPIError, TimeoutError)
MOST_AGAIN = 20  # faults of a brief run that had no effect and are injected again


@dataclass
class InjectedFault:
    """One injected fault. Times are time.time()."""

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
    """The plan of a run. It ends after `seconds`, when the numbers of faults, of each kind and of orders are reached;
    or after three times the number of faults that this should take.
    """

    faults: int = 0
    orders: int = 0
    seconds: float = 0.0
    each: int = 0  # minimum number of faults of each kind
    per_round: int = 40
    pause: float = 3.0  # average seconds from one fault to the next
    at_once: int = 4
    decided_within: float = DECIDED_WITHIN
    time_factor: float = 1.0  # multiplies all limits, for a slow or busy machine
    # Each kind once, in their order, at the same time only those with the same scope; the next round has those that had
    # no effect.
    each_once: bool = False
    kinds: list = field(default_factory=list)

    @property
    def most(self):
        """The maximum number of faults, including those that had no effect."""
        if self.each_once:
            return len(self.kinds) + MOST_AGAIN
        return 3 * max(self.faults, self.each * len(self.kinds), self.per_round)


@dataclass
class Outcome:
    """The result of a run."""

    seed: int
    began: float
    seconds: float = 0.0
    orders: int = 0
    journal: list = field(default_factory=list)
    checks: dict = field(default_factory=dict)  # name -> ids, over all rounds
    recoveries: list = field(default_factory=list)  # seconds from the end of the last fault to the last decision
    responses: Counter = field(default_factory=Counter)
    commands: Counter = field(default_factory=Counter)
    not_staged: list = field(default_factory=list)  # kinds that are not possible on this machine
    histories: list = field(default_factory=list)
    problems: list = field(default_factory=list)  # problems other than violated invariants
    isolation: Isolation | None = None  # what the probes have found, in a run with slow faults

    @property
    def injected(self):
        return Counter(one.kind for one in self.journal if not one.missed and not one.failed)

    @property
    def is_broken(self):
        """Whether going on is useless. Slow requests that should be fast do not end a run."""
        return bool(self.problems) or any(self.checks.values())

    @property
    def sound(self):
        isolated = self.isolation is None or not (self.isolation.violations or self.isolation.problems)
        return not self.is_broken and isolated


class Run:
    """Injects faults into a sandbox under a load that has been started. With a `watch`, the probes are judged too.

    `workers` must outlive the sandbox: a server that a fault starts ends with the thread that started it.
    """

    def __init__(self, sandbox, load, plan: Plan, seed: int, workers: ThreadPoolExecutor, say=print, watch=None):
        self._sandbox, self._load, self._plan, self._say = sandbox, load, plan, say
        self._chance, self._watch = random.Random(seed), watch
        self._workers, self._slots = workers, threading.Semaphore(plan.at_once)
        self.outcome = Outcome(seed, time.time(), isolation=watch.isolation if watch else None)
        self._deck = self._shuffled()

    def run(self) -> Outcome:
        """Run all rounds. The load goes on at the end, paused."""
        began, before = time.monotonic(), len(self._load.accepted)
        responses = Counter(self._load.responses)
        for number in itertools.count(1):
            self._round(number)
            self.outcome.orders = len(self._load.accepted) - before
            if self.outcome.is_broken or self._is_enough(time.monotonic() - began):
                break
            if len(self.outcome.journal) >= self._plan.most and time.monotonic() - began >= self._plan.seconds:
                self.outcome.problems.append("the run did not get all its faults or orders")
                break
        self.outcome.seconds = time.monotonic() - began
        self.outcome.responses = Counter(self._load.responses) - responses
        self.outcome.commands = Counter(command for one in self._load.accepted[before:] for command in one.done)
        return self.outcome

    def _limit(self, seconds):
        """A limit of `seconds`, on this machine."""
        return seconds * self._plan.time_factor

    def _is_enough(self, seconds):
        plan, injected = self._plan, self.outcome.injected
        return (
            seconds >= plan.seconds
            and injected.total() >= plan.faults
            and self.outcome.orders >= plan.orders
            and all(injected[kind.name] >= plan.each for kind in plan.kinds)
        )

    # One round

    def _round(self, number):
        began = time.time()
        self._load.resume()
        if self._watch:
            self._watch.begin_round()
        self._await_end(self._start_faults())
        healed_at = time.monotonic()
        try:
            if self._watch:
                self._watch.end_round()
            self._check(number, began, healed_at)
        except Exception as error:  # noqa: BLE001 - a server that never comes back leads to a verdict, too
            self.outcome.problems.append(f"round {number} could not be judged: {_in_a_line(error)}")

    def _await_end(self, faults):
        """Wait until all faults have healed. One that waits for ever is a problem, and does not end the run without a
        verdict."""
        wait(faults, timeout=self._limit(LONGEST_FAULT))
        self.outcome.problems += [
            f"a fault did not end within {self._limit(LONGEST_FAULT):.0f} s: {one.kind}, since {_clock(one.began)}"
            for one in self.outcome.journal
            if not one.ended
        ]

    def _start_faults(self):
        """Start the faults of a round; returns their futures."""
        faults, scope = [], None
        for _ in range(len(self._due()) if self._plan.each_once else self._plan.per_round):
            fault = next(self._deck)
            if self._plan.each_once and fault.scope != scope:
                wait(faults, timeout=self._limit(LONGEST_FAULT))
                scope = fault.scope
            faults.append(self._start_fault(fault))
        return faults

    def _start_fault(self, fault):
        """Start a fault after a random pause, when fewer than `at_once` faults are active."""
        if self._chance.random() > 0.25:  # otherwise together with the previous one
            time.sleep(self._chance.uniform(0.4, 2.2) * self._plan.pause)
        self._slots.acquire(timeout=self._limit(LONGEST_FAULT))  # one that does not end is reported after the round
        injected = InjectedFault(fault.name, time.time())
        self.outcome.journal.append(injected)
        return self._workers.submit(self._inject, fault, injected, random.Random(self._chance.random()))

    def _inject(self, fault, injected, chance):
        try:
            injected.what = fault.inject(self._sandbox, chance).removeprefix(f"{fault.name}: ")
        except UNREACHABLE as reason:
            injected.what, injected.missed = _in_a_line(reason), True
        except Exception as error:  # noqa: BLE001 - a fault that fails does not end the run, but is a problem
            injected.what, injected.failed = f"{type(error).__name__}: {error}", True
            self.outcome.problems.append(f"a fault failed: {injected.kind}: {injected.what}")
        finally:
            injected.ended = time.time()
            self._slots.release()
        self._say(f"  {injected.line()}")

    def _shuffled(self):
        """Yield all kinds in a random order, again and again. With `each`, kinds below that number come first."""
        while True:
            kinds = self._due() or list(self._plan.kinds)
            if not self._plan.each_once:
                self._chance.shuffle(kinds)
            yield from kinds

    def _due(self):
        """The kinds that were injected less often than they have to be."""
        return [kind for kind in self._plan.kinds if self.outcome.injected[kind.name] < self._plan.each]

    def _check(self, number, began, healed_at):
        """Pause the load, wait until the suite is at rest, and check the invariants."""
        if not self._load.pause(seconds := self._limit(ANSWERED_WITHIN)):
            self.outcome.problems.append(f"requests were still open {seconds:.0f} s after the last fault had ended")
        longest = self._limit(self._plan.decided_within)
        recovery = await_decided(self._sandbox, healed_at, 2 * longest)
        self.outcome.recoveries.append(recovery)
        if recovery > longest:
            self.outcome.problems.append(
                f"round {number}: the last order was decided {recovery:.1f} s after the last fault had ended"
            )
        try:
            self._sandbox.wait_ready(self._limit(READY_WITHIN))
        except Exception as error:  # noqa: BLE001 - reported with the other problems
            self.outcome.problems.append(f"the suite is not ready again: {error}")
        checks = judge(self._sandbox, self._load, self._limit(AT_REST_WITHIN), self._limit(TOLD_WITHIN))
        at_rest = time.monotonic() - healed_at
        for check in checks:
            self.outcome.checks[check.name] = check.ids
        self._say(
            f"round {number}: {len(self._load.accepted)} orders, {self.outcome.injected.total()} faults, all decided "
            f"{recovery:.1f} s and at rest {at_rest:.1f} s after the last fault ended; "
            f"{os.getloadavg()[0]:.1f} load; {'sound' if self.outcome.sound else 'NOT SOUND'}"
        )
        if not self.outcome.sound:
            self._say(report(checks))
            self._describe(checks, began)

    def _describe(self, checks, began):
        """Describe the orders that a violated check names, with their timelines and the faults at that time."""
        named = list(dict.fromkeys(word for check in checks for key in check.ids for word in key.split()))
        requested = {one.order_id: one for one in self._load.requests if one.order_id}
        for order in [word for word in named if word in requested][:3]:
            one = requested[order]
            lines = [order_history(self._sandbox, order)]
            lines.append(f"    requested {_clock(one.began)}, accepted {_clock(one.responded)}")
            lines += [f"    {injected.line()}" for injected in self.outcome.journal if self._touches(injected, one)]
            self.outcome.histories.append("\n".join(lines))
        if not self.outcome.histories:
            lines = [f"    {injected.line()}" for injected in self.outcome.journal if injected.began >= began]
            self.outcome.histories.append("\n".join(["  the faults of this round:", *lines]))

    def _touches(self, injected, one):
        """Whether the fault may have affected the order. A saga may take longer than its deadline."""
        return injected.began < one.responded + 90 and (not injected.ended or injected.ended > one.began - 15)


def _in_a_line(error):
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def _clock(at):
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"
