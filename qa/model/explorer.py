"""Visits every reachable state of a scenario, breadth first, and judges each one.

Why every order comes to rest: each step that helps (a delivery that is due, the relay, the provider's answer, and the
commit of such a transaction) sets a bit that nothing ever clears again, or takes a payment out of PENDING, to which
nothing ever brings it back; both are asserted of every step. There are finitely many bits. In every state that is not
at rest such a step is possible, which is asserted of every state; an open transaction can always commit. So wherever
such steps are taken again and again, and not every transaction dies for ever, all is at rest after finitely many.
"""

import time
from array import array
from dataclasses import dataclass, field

from qa.model.description import describe
from qa.model.invariants import Invariants
from qa.model.records import Broken
from qa.model.world import World


@dataclass
class Report:
    """What an exploration found."""

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
    def story(self):
        """How the promise was broken, step by step."""
        promise, seen = self.broken.args
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.path, 1))
        return f"{self.name}: broken after {self.states:,} states: {promise}\n  seen: {seen}\n{steps}"


def explore(scenario, limit=None):
    """Explore all of `scenario`, or until a promise is broken. More than `limit` states are a failure of their own."""
    began = time.process_time()
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
            elif not world.open.values[state[-1]] and not invariants.can_move_on(state):
                raise Broken("whatever is not at rest can move on", "stuck")
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
    """Return the steps from the start to the state that is broken, in words."""
    line = [current]
    while parents[line[-1]] >= 0:
        line.append(parents[line[-1]])
    wanted = [states[number] for number in line[-2::-1]]
    if failed is not None:
        wanted.append(world.canonical(failed))
    state, steps = states[0], []
    for goal in wanted:  # a state's other names do as well: the path keeps to those with which it began
        said, state = next(found for found in world.next(state) if world.canonical(found[1]) == goal)
        steps.append(describe(world.scenario, said))
    return steps
