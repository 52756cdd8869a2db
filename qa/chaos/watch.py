"""Watches the probes while slow faults are active, and judges them at the end of each round."""

import time
from contextlib import contextmanager

from qa.chaos.isolation import FACTOR, RECOVERY_SECONDS, Isolation, Window, judge, limits, normal
from qa.chaos.probes import PROBES

NORMAL_SECONDS = 20.0
LEAST_LIMIT_SECONDS = 0.25
LAST_SECOND = 1.0  # before the first fault, which may already delay these requests


class Watch:
    """`probes` make the requests. A round, or with `once` only the first round, begins with `normal_seconds` without a
    fault, in which the normal p99 is measured.
    """

    def __init__(
        self,
        probes,
        *,
        normal_seconds=NORMAL_SECONDS,
        least=LEAST_LIMIT_SECONDS,
        factor=FACTOR,
        recovery=RECOVERY_SECONDS,
        once=False,
    ):
        self._probes, self._normal_seconds, self._recovery, self._once = probes, normal_seconds, recovery, once
        self._windows, self._first_fault_at, self._measures = [], 0.0, True
        self.isolation = Isolation(least, factor)

    def begin_round(self):
        """Start the probes, and measure them without a fault."""
        self._windows = []
        self._probes.start()
        self._measures = not (self._once and self.isolation.normal)
        if self._measures:
            time.sleep(self._normal_seconds)
        self._first_fault_at = time.time()

    @contextmanager
    def during(self, effect, kind):
        """A fault with this effect is active within the block; yields its window."""
        window = Window(kind, effect.affects, time.time(), allowance=effect.allowance, lingers=effect.lingers)
        self._windows.append(window)
        try:
            yield window
        finally:
            window.ended = time.time()

    def end_round(self):
        """Stop the probes, and judge the round. Call it before the load pauses."""
        self._probes.stop()
        samples = self._probes.samples()
        if self._measures:
            self._measure(samples)
        limit = limits(self.isolation.normal, self.isolation.least, self.isolation.factor)
        self.isolation.findings += judge(samples, self._windows, PROBES, limit, self._recovery)

    def _measure(self, samples):
        before = [one for one in samples if one.due < self._first_fault_at - LAST_SECOND]
        self.isolation.normal, problems = normal(before, PROBES)
        if self._once and self.isolation.normal:  # a few seconds on a busy machine: judge the others
            self.isolation.not_judged = problems
        else:
            self.isolation.problems += problems
