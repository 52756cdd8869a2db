"""Visits every reachable state of a scenario, breadth first, and checks the invariants in each.

Why every order comes to rest: each step that makes progress (a delivery that is due, the relay, the provider's outcome,
and the commit of such a transaction) sets a bit that no step clears, or takes a payment out of PENDING, to which no
step returns it. Both are asserted for every step. The number of bits is finite. In every state that is not at rest such
a step is possible, which is asserted for every state; an open transaction can always commit. So a run in which such
steps are taken repeatedly, and in which not every transaction crashes, is at rest after finitely many of them.
"""

import time
from array import array
from dataclasses import dataclass, field

from qa.model import services
from qa.model.invariants import Invariants
from qa.model.records import Broken
from qa.model.step_text import describe
from qa.model.world import World


@dataclass
class Report:
    """The result of an exploration."""

    name: str
    states: int
    transitions: int
    at_rest: int
    seconds: float
    hits: dict = field(repr=False)
    broken: Broken | None = None
    path: list[str] = field(default_factory=list)

    def __str__(self):
        size = f"{self.states:,} states, {self.transitions:,} transitions, {self.at_rest:,} at rest"
        return f"{self.name}: {size}, {self.seconds:.1f} s of CPU"

    @property
    def trace(self):
        """The steps that lead to the violation."""
        invariant, seen = self.broken.args
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.path, 1))
        return f"{self.name}: violated after {self.states:,} states: {invariant}\n  seen: {seen}\n{steps}"


def explore(scenario, limit=None):
    """Explore all states of `scenario`, or stop at a violated invariant. More than `limit` states are one too."""
    began = time.process_time()
    services.payment_state.cache_clear()
    world = World(scenario)
    invariants = Invariants(world)
    start = world.canonical(world.start())
    numbers, states, parents = {start: 0}, [start], array("q", [-1])
    transitions = at_rest = current = 0
    broken = failed = None
    try:
        invariants.always(start)
        while current < len(states):
            state = states[current]
            failed = None
            if invariants.is_at_rest(state):
                at_rest += 1
                invariants.at_rest(state)
            elif not world.open.values[state[-1]] and not invariants.can_progress(state):
                raise Broken("every state that is not at rest permits progress", "stuck")
            for _, reached in world.next(state):
                transitions += 1
                failed = reached
                invariants.step(state, reached)
                after = world.canonical(reached)
                if after not in numbers:
                    invariants.always(after)
                    numbers[after] = len(states)
                    states.append(after)
                    parents.append(current)
            failed = None
            current += 1
            if limit is not None and len(states) > limit:
                raise Broken("the exploration ends", f"more than {limit:,} states")
    except Broken as error:
        broken = error
    report = Report(scenario.name, len(states), transitions, at_rest, time.process_time() - began, world.hits, broken)
    if broken is not None:
        report.path = _path(world, states, parents, current, failed)
    return report


def _path(world, states, parents, current, failed):
    """Return descriptions of the steps from the start to the state that violates an invariant."""
    line = [current]
    while parents[line[-1]] >= 0:
        line.append(parents[line[-1]])
    wanted = [states[number] for number in line[-2::-1]]
    if failed is not None:
        wanted.append(world.canonical(failed))
    state, steps = states[0], []
    for goal in wanted:  # compare canonical states, but keep the names of the first state along the path
        label, state = next(found for found in world.next(state) if world.canonical(found[1]) == goal)
        steps.append(describe(world.scenario, label))
    return steps
