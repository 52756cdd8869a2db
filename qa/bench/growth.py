"""The cost of an order with millions of stored orders, and with thousands: `python -m qa.bench --only growth`.

Two sets of databases on the same server alternate, each with a newly started suite, so that other load on the machine
affects both. The figure is the processor time of all processes, with 32 clients in a closed loop.
"""

from dataclasses import dataclass

from qa.bench.shop import Shop
from qa.bench.stored import SERVICES, Stored

CLIENTS = 32
COST = "growth: processor ms an order"


@dataclass(frozen=True)
class Sizes:
    """The numbers of stored orders, the number of turns, and the seconds of each turn."""

    few: int = 10_000
    many: int = 2_000_000
    turns: int = 5
    warm_up: float = 5.0
    seconds: float = 30.0


TINY = Sizes(few=1_000, many=5_000, turns=1, warm_up=0.5, seconds=2.0)


class Growth:
    """Both sets of databases; `measure` creates and drops them."""

    def __init__(self, bench_servers, sizes, say):
        self._bench_servers, self._sizes, self._say = bench_servers, sizes, say
        self.figures = []  # one dict for each turn
        self.cpu = []

    def measure(self):
        """Load both sets, measure alternately, and check the consistency of all orders. Raises Inconsistent."""
        candidates = {"few": self._loaded("few", self._sizes.few), "many": self._loaded("many", self._sizes.many)}
        try:
            for turn in range(self._sizes.turns):
                figures, cpu = {}, {}
                for name in ("few", "many") if turn % 2 else ("many", "few"):
                    cpu[f"suite, {name} stored"], figures[f"growth: settled/s, {name} stored"] = self._turn(
                        candidates[name], all_orders=turn == self._sizes.turns - 1
                    )
                for name in candidates:
                    figures[f"{COST}, {name} stored"] = sum(cpu[f"suite, {name} stored"].values())
                self.figures.append(figures)
                self.cpu.append(cpu)
                for name, value in figures.items():
                    self._say(f"  {name}: {value:.4g}")
        finally:
            for bench_servers in candidates.values():
                self._bench_servers.drop_databases(bench_servers.database_urls)

    def _loaded(self, name, orders):
        urls = self._bench_servers.databases_for(f"growth_{name}", SERVICES)
        stored = Stored(lambda service: self._bench_servers.superuser(f"growth_{name}_{service}"))
        seconds = stored.load(orders)
        self._say(f"  {orders:,} orders loaded in {seconds:.0f} s")
        return self._bench_servers.with_databases(urls)

    def _turn(self, bench_servers, *, all_orders):
        """Return (processor ms per order by process, orders settled per second)."""
        with Shop(bench_servers) as shop:
            shop.place(self._sizes.warm_up, clients=CLIENTS)
            loaded, cpu = shop.place(self._sizes.seconds, clients=CLIENTS)
            shop.require_consistent(all_orders=all_orders)
        return cpu, loaded.settled_per_second
