"""Slow faults: something is slow, stuck, locked or refused for a while, and nothing crashes.

A module of each family lists its kinds (slow_kinds.py). Each states what it affects, so that the probes (probes.py)
which need nothing of it are judged while it is active.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from qa.chaos.faults import FaultNotInjected

Note = Callable[[], str]
NOTHING, ONE_SERVICE, EVERYTHING = "nothing", "one service", "everything"


@dataclass(frozen=True)
class Effect:
    """One fault that is about to be injected.

    `broken` breaks something within its block, and yields a function that says what effect it had; an empty text means
    none. `affects` has the words of `Probe.needs`. Other faults that need `exclusive` wait.
    """

    what: str
    affects: frozenset[str]
    broken: Callable[[], AbstractContextManager[Note]]
    exclusive: tuple[str, ...] = ()
    allowance: float = 0.0  # seconds that an unaffected request may take longer
    lingers: float = 0.0  # seconds for which what it affects stays affected


@dataclass(frozen=True)
class SlowFault:
    """One kind. `plan(sandbox, chance)` chooses the target of one fault.

    `scope` says what it affects, before its target is chosen: a service, NOTHING, ONE_SERVICE or EVERYTHING.
    """

    name: str
    plan: Callable[[Any, Any], Effect]
    scope: str

    def inject(self, sandbox, chance):
        effect, held = self.plan(sandbox, chance), chance.uniform(*sandbox.slow_seconds)
        with sandbox.exclusively(*effect.exclusive), sandbox.watched(effect, self.name) as window:
            with effect.broken() as note:
                time.sleep(held)
                had_effect = note()
            if window is not None:
                window.effective = bool(had_effect)
        if not had_effect:
            raise FaultNotInjected(f"{effect.what}: no effect in {held:.1f} s")
        return f"{effect.what} for {held:.1f} s, {had_effect}"
