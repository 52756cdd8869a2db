"""The judgement of the slow faults: is what does not need the slow part as fast as before?

A probe is a request that is made at a constant rate. It is unaffected while no fault is active, or was within
RECOVERY_SECONDS, that affects what it needs. A sample of an unaffected probe is bad if it failed, or if it took longer
than the limit: twice the normal p99 of this probe in the same round, and never less than `least`.

A p99 of a few samples is their maximum, and a single one may have waited for something else on a busy machine. So a
probe is violated when its bad samples are more than a process with 1 % of bad samples would have, with a probability of
one in a thousand: 2 of up to 4 samples, 4 of 24, 8 of 200. This is tested for each fault, and for all faults of a kind.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

RECOVERY_SECONDS = 3.0
TOLERATED = 0.01  # the share of samples above a p99
SIGNIFICANCE = 0.001
FACTOR = 2.0
MOST_FAILED = 0.05  # of the normal samples


@dataclass(frozen=True)
class Probe:
    """A kind of request. `needs` are services, and what only the gateway has: itself, and "calls" of services."""

    name: str
    needs: frozenset[str]
    rate: float  # requests per second


@dataclass(frozen=True)
class Sample:
    """One request: when it was due (time.time()), the seconds from then to its end, and why it failed."""

    probe: str
    due: float
    seconds: float
    failure: str = ""


@dataclass
class Window:
    """The time in which a fault is active. `affects` has the same words as `Probe.needs`.

    No unaffected request may take more than `allowance` seconds longer. The effect goes on for `lingers` seconds.
    """

    kind: str
    affects: frozenset[str]
    began: float
    ended: float = math.inf
    allowance: float = 0.0
    lingers: float = 0.0
    effective: bool = False


@dataclass
class Finding:
    """The unaffected samples of one probe: during one fault, or during all faults of a kind. Times are seconds."""

    kind: str
    probe: str
    samples: int = 0
    bad: int = 0
    p99: float = 0.0
    limit: float = 0.0
    failures: str = ""
    beside: frozenset[str] = frozenset()  # the kinds of the faults that were active during bad samples

    @property
    def is_violated(self) -> bool:
        return self.bad >= significant(self.samples)

    def __str__(self) -> str:
        failed = f", {self.failures}" if self.failures else ""
        beside = f"; beside it: {', '.join(sorted(self.beside))}" if self.beside else ""
        return (
            f"{self.kind}: {self.probe}: {self.bad} of {self.samples} took longer than {1000 * self.limit:.0f} ms or "
            f"failed (p99 {1000 * self.p99:.0f} ms{failed}){beside}"
        )


def significant(samples: int) -> int:
    """The smallest number of bad samples that is significant: at least 2, or 1 of a single sample is not enough."""
    tail, bad = 1.0, 0
    while tail >= SIGNIFICANCE and bad <= samples:
        tail -= math.comb(samples, bad) * TOLERATED**bad * (1 - TOLERATED) ** (samples - bad)
        bad += 1
    return max(2, bad)


def p99(seconds: Iterable[float]) -> float:
    """The value that one in a hundred exceeds; of fewer values, the largest one."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)] if ordered else 0.0


def normal(samples: Iterable[Sample], probes: Iterable[Probe]) -> tuple[dict[str, float], list[str]]:
    """Return the p99 of each probe without a fault, and why others have none: they failed, or were not measured."""
    by_probe = defaultdict(list)
    for sample in samples:
        by_probe[sample.probe].append(sample)
    measured, problems = {}, []
    for probe in probes:
        found = by_probe[probe.name]
        failed = [sample.failure for sample in found if sample.failure]
        if len(found) > len(failed) and len(failed) <= max(1, MOST_FAILED * len(found)):
            measured[probe.name] = p99(sample.seconds for sample in found if not sample.failure)
        else:
            problems.append(f"without a fault, {len(failed)} of {len(found)} of '{probe.name}' failed: {failed[:3]}")
    return measured, problems


def limits(normal_p99: Mapping[str, float], least: float, factor: float = FACTOR) -> dict[str, float]:
    """Return the longest time in which each probe has to be answered while it is unaffected, in seconds."""
    return {probe: max(factor * seconds, least) for probe, seconds in normal_p99.items()}


def judge(
    samples: Iterable[Sample],
    windows: Iterable[Window],
    probes: Iterable[Probe],
    limit: Mapping[str, float],
    recovery: float = RECOVERY_SECONDS,
) -> list[Finding]:
    """Return a finding for each fault and each probe that has a limit, and samples that the fault did not affect."""
    active, by_probe = [(one, one.ended + one.lingers + recovery) for one in windows], defaultdict(list)
    for sample in samples:
        by_probe[sample.probe].append(sample)
    findings = []
    for window, _over in active:
        for probe in probes:
            if window.effective and probe.name in limit and not window.affects & probe.needs:
                found = _unaffected(by_probe[probe.name], window, active, probe, limit[probe.name])
                findings += [_finding(window.kind, probe.name, found)] if found else []
    return findings


def _unaffected(samples, window, active, probe, limit):
    """Return (sample, its limit, the active windows) of those that were due during the window and that no other one
    affects."""
    found = []
    for sample in samples:
        if not window.began <= sample.due < window.ended:
            continue
        until = sample.due + min(sample.seconds, limit)
        present = [one for one, over in active if one.began <= until and sample.due < over]
        if not any(one.affects & probe.needs for one in present):
            found.append((sample, limit + max(one.allowance for one in present), present))
    return found


def _finding(kind, probe, found):
    bad = [(sample, present) for sample, limit, present in found if sample.failure or sample.seconds > limit]
    failures = sorted({sample.failure for sample, _present in bad if sample.failure})
    beside = frozenset(one.kind for _sample, present in bad for one in present if one.effective) - {kind}
    seconds = [sample.seconds for sample, _limit, _present in found]
    limit = max(limit for _sample, limit, _present in found)
    return Finding(kind, probe, len(found), len(bad), p99(seconds), limit, ", ".join(failures[:3]), beside)


def pooled(findings: Iterable[Finding]) -> list[Finding]:
    """Return one finding for each kind and probe. Its p99 is the largest of its faults, its limit too."""
    by_kind: dict[tuple[str, str], Finding] = {}
    for one in findings:
        total = by_kind.setdefault((one.kind, one.probe), Finding(one.kind, one.probe))
        total.samples += one.samples
        total.bad += one.bad
        total.p99, total.limit = max(total.p99, one.p99), max(total.limit, one.limit)
        total.failures = total.failures or one.failures
        total.beside |= one.beside
    return list(by_kind.values())


@dataclass
class Isolation:
    """What the probes of a run have found."""

    least: float
    factor: float = FACTOR
    normal: dict = field(default_factory=dict)  # the p99 of each probe in the last round, in seconds
    findings: list[Finding] = field(default_factory=list)  # for each fault and probe
    problems: list[str] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)  # probes that failed without a fault, in a brief run

    @property
    def kinds(self) -> list[Finding]:
        """The findings of all faults of a kind together."""
        return pooled(self.findings)

    @property
    def violations(self) -> list[str]:
        """Every violation, first those of single faults. A kind is named only if none of its faults is."""
        single = [one for one in self.findings if one.is_violated]
        named = {(one.kind, one.probe) for one in single}
        together = [one for one in self.kinds if one.is_violated and (one.kind, one.probe) not in named]
        return [str(one) for one in single] + [f"all faults together: {one}" for one in together]
