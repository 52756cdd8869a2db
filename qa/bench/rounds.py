"""The rounds: each measures all candidates once, so that other load on the machine affects all of them.

A figure's name is "<candidate>: <what>"; a round is {figure: value}. The suite's figures of a round count only if its
consistency checks hold at the end of the round.
"""

import os
import time
from dataclasses import dataclass, field
from functools import cached_property

from qa.bench.calls import OURS, UNMODIFIED_NAMEKO, calls_per_second
from qa.bench.faststream_saga import FastStreamSaga
from qa.bench.floor import Floor
from qa.bench.orders import percentile
from qa.bench.process_usage import slope_per_hour
from qa.bench.relay import commit_to_broker_p99, relayed_per_second
from qa.bench.shop import Inconsistent, Shop, latencies
from qa.bench.unmodified_nameko import UnmodifiedNameko

FEW, MANY = 32, 128
SWEEP = (0.25, 0.5, 0.75, 0.9, 1.0, 1.2)  # of the closed loop's rate
MEMORY_SECONDS = 5.0


@dataclass(frozen=True)
class Lengths:
    """The seconds of each part, and the number of outbox rows for the relay."""

    warm_up: float = 5.0
    floor: float = 30.0
    faststream: float = 60.0
    stock: float = 30.0
    reads: float = 20.0
    calls: float = 10.0
    orders: float = 60.0
    paced: float = 60.0
    commits: float = 20.0
    outbox: int = 20_000


QUICK = Lengths(
    warm_up=1.5, floor=4, faststream=6, stock=3, reads=2.5, calls=1.5, orders=7, paced=8, commits=3, outbox=5_000
)
TINY = Lengths(
    warm_up=0.3, floor=0.3, faststream=0.5, stock=0.3, reads=0.3, calls=0.3, orders=1, paced=1, commits=1, outbox=500
)


@dataclass
class Measured:
    """The result of a run of the benchmark."""

    rounds: list = field(default_factory=list)
    cpu: list = field(default_factory=list)  # {what: {process: ms per order}}, one per round
    load_averages: list = field(default_factory=list)
    problems: list = field(default_factory=list)  # failed consistency checks, and parts that could not be measured
    sweep: list = field(default_factory=list)
    long_run: dict = field(default_factory=dict)
    turns: list = field(default_factory=list)  # {figure: value} of the parts after the rounds (extras.py)
    plans: list = field(default_factory=list)  # every statement of the hot paths, and the rows that it read
    memory: dict = field(default_factory=dict)  # the load of the memory part, and every sample


class Bench:
    """Measures the candidates on the same servers."""

    def __init__(self, bench_servers, lengths, say):
        self._bench_servers, self._lengths, self._say = bench_servers, lengths, say
        self.measured = Measured()

    @cached_property
    def _floor(self):
        return Floor(self._bench_servers)

    def round(self, number, only=()):
        """Measure every candidate once; each round begins with another one."""
        parts = [self._measure_floor, self._measure_faststream, self._measure_stock, self._measure_suite]
        if only:
            parts = [part for part in parts if part.__name__.removeprefix("_measure_") in only]
        self.measured.load_averages.append(os.getloadavg()[0])
        figures, cpu = {}, {}
        first = number % len(parts)
        for part in parts[first:] + parts[:first]:
            self._figures, self._cpu = {}, {}
            try:
                part()
            except Exception as error:  # noqa: BLE001 - the other candidates are measured all the same
                name = part.__name__.removeprefix("_measure_")
                self._say(f"the figures of {name} do not count: {type(error).__name__}: {error}")
                self.measured.problems.append(f"{name}: {error}")
            else:
                figures |= self._figures
                cpu |= self._cpu
        self.measured.rounds.append(figures)
        self.measured.cpu.append(cpu)

    def _note(self, figures):
        for name, value in figures.items():
            self._say(f"  {name}: {value:.4g}")
        self._figures |= figures

    def _measure_floor(self):
        loaded, cpu = self._floor.run(self._lengths.floor)
        self._note({"floor: settled/s": loaded.settled_per_second})
        self._cpu["floor"] = cpu
        self._floor.run_behind_http(self._lengths.warm_up, MANY)
        loaded, cpu = self._floor.run_behind_http(self._lengths.floor, MANY)
        self._note(
            {
                "floor behind HTTP: accepted/s": loaded.accepted_per_second,
                "floor behind HTTP: settled/s": loaded.settled_per_second,
            }
        )
        self._cpu["floor behind HTTP"] = cpu

    def _measure_faststream(self):
        with FastStreamSaga(self._bench_servers) as saga:
            saga.place(self._lengths.warm_up, FEW)
            loaded, cpu = saga.place(self._lengths.faststream, FEW)
        self._note(
            {
                "FastStream: accepted/s": loaded.accepted_per_second,
                "FastStream: settled/s": loaded.settled_per_second,
            }
        )
        self._cpu["FastStream"] = cpu

    def _measure_stock(self):
        with UnmodifiedNameko(self._bench_servers) as nameko:
            nameko.accepted_per_second(self._lengths.warm_up, FEW)
            self._note(
                {
                    "unmodified Nameko: accepted/s": nameko.accepted_per_second(self._lengths.stock, FEW),
                    "unmodified Nameko: a constant/s": nameko.constant_per_second(self._lengths.reads, FEW),
                    "unmodified Nameko: GET by RPC/s": nameko.reads_per_second(self._lengths.reads, FEW),
                }
            )
        for name, transport in (("unmodified Nameko", UNMODIFIED_NAMEKO), ("suite", OURS)):
            rates = calls_per_second(self._bench_servers, transport, self._lengths.calls)
            self._note({f"{name}: RPC/s, one at a time": rates["one"], f"{name}: RPC/s, ten at a time": rates["ten"]})

    def _measure_suite(self):
        shop = Shop(self._bench_servers)
        try:
            shop.start()
            self._note({f"memory at rest: {service}": mib for service, mib in shop.memory.items()})
            self._place_orders(shop)
            reads = shop.reads(self._lengths.reads, FEW)
            self._note({f"suite: GET /{things}/{{id}}/s": rate for things, rate in reads.items()})
            self._note({f"memory after load: {service}": mib for service, mib in shop.resident().items()})
            self._note({"suite: relay events/s": relayed_per_second(shop, self._lengths.outbox)})
            shop.require_consistent()
        finally:
            shop.stop()

    def _place_orders(self, shop):
        shop.place(self._lengths.warm_up, clients=FEW)
        rates = []
        for clients in (FEW, MANY):
            loaded, cpu = shop.place(self._lengths.orders, clients=clients)
            rates.append(loaded.settled_per_second)
            self._note(
                {
                    f"suite: accepted/s, {clients} clients": loaded.accepted_per_second,
                    f"suite: settled/s, {clients} clients": loaded.settled_per_second,
                    f"suite: refused, {clients} clients": float(sum(loaded.refused.values())),
                }
            )
            self._cpu[f"suite, {clients} clients"] = cpu
        half = min(rates) / 2
        loaded, self._cpu["suite, at half"] = shop.place(self._lengths.paced, rate=half)
        self._note({"suite: offered/s at half": half})
        self._note({f"suite: {name} ms at half": value for name, value in latencies(loaded).items()})
        p99, _loaded = commit_to_broker_p99(shop, self._lengths.commits, half)
        self._note({"suite: commit to broker p99 ms": p99})

    def sweep(self, seconds, peak):
        """Measure throughput and latency at several offered loads, for the plot."""

        def measure(shop):
            for share in SWEEP:
                rate = share * peak
                loaded, _cpu = shop.place(
                    seconds, rate=rate, lost_share=1.0
                )  # the offered load is intentionally too high
                point = {
                    "offered": rate,
                    "accepted": loaded.accepted_per_second,
                    "settled": loaded.settled_per_second,
                    "lost": loaded.lost,
                    "refused": sum(loaded.refused.values()) + loaded.not_sent,
                } | latencies(loaded)
                self._say(f"  offered {rate:.0f}/s: settled {point['settled']:.0f}/s")
                self.measured.sweep.append(point)

        if not self._with_shop(measure):
            self.measured.sweep = []

    def long_run(self, seconds, rate):
        """Measure latencies and the growth of memory under a long steady load."""
        self._with_shop(lambda shop: self._run_long(shop, seconds, rate))

    def _run_long(self, shop, seconds, rate):
        samples, parts, end = {}, [], time.monotonic() + seconds
        began = time.monotonic()
        shop.place(self._lengths.warm_up, clients=FEW)
        while (left := end - time.monotonic()) > 1:
            loaded, _cpu = shop.place(min(30.0, left), rate=rate)
            parts.append(loaded)
            for service, mib in shop.resident().items():
                samples.setdefault(service, []).append((time.monotonic() - began, mib))
        settle = [one for part in parts for one in part.settle_seconds]
        self.measured.long_run = {
            "seconds": seconds,
            "offered/s": rate,
            "orders": sum(len(part.settled) for part in parts),
            "refused": sum(part.refused.total() for part in parts),
            "settle p99.9 ms": 1000 * percentile(settle, 0.999),
            "MiB an hour": {service: slope_per_hour(points) for service, points in samples.items()},
        }

    def _with_shop(self, measure):
        shop = Shop(self._bench_servers)
        try:
            shop.start()
            measure(shop)
            shop.require_consistent()
        except Inconsistent as error:
            self.measured.problems.append(str(error))
            self.measured.long_run = {}
            self._say(f"INCONSISTENT: {error}")
            return False
        finally:
            shop.stop()
        return True
