"""What an order costs when millions are stored, against a few thousand: `python -m qa.bench --only growth`.

Two sets of databases on the same server, in turn under a freshly started suite, so that whatever else the machine does
hits both. Compared is the processor time of all processes, with 32 clients in a closed loop as in the suite's part.
"""

from dataclasses import dataclass

from qa.bench.shop import Shop
from qa.bench.stored import SERVICES, Stored

CLIENTS = 32
COST = "growth: processor ms an order"


@dataclass(frozen=True)
class Sizes:
    """How many orders are stored, how often each set has its turn, and the seconds of each turn."""

    few: int = 10_000
    many: int = 2_000_000
    turns: int = 5
    warm_up: float = 5.0
    seconds: float = 30.0


TINY = Sizes(few=1_000, many=5_000, turns=1, warm_up=0.5, seconds=2.0)


class Growth:
    """Both sets of databases; `measure` leaves none."""

    def __init__(self, ground, sizes, say):
        self._ground, self._sizes, self._say = ground, sizes, say
        self.figures = []  # one dict for each turn
        self.cpu = []

    def measure(self):
        """Load both, measure in turn, and compare all books, those of the loaded orders included. Raises Unsound."""
        grounds = {"few": self._loaded("few", self._sizes.few), "many": self._loaded("many", self._sizes.many)}
        try:
            for turn in range(self._sizes.turns):
                figures, cpu = {}, {}
                for name in ("few", "many") if turn % 2 else ("many", "few"):
                    cpu[f"suite, {name} stored"], figures[f"growth: settled/s, {name} stored"] = self._turn(
                        grounds[name], since_ever=turn == self._sizes.turns - 1
                    )
                for name in grounds:
                    figures[f"{COST}, {name} stored"] = sum(cpu[f"suite, {name} stored"].values())
                self.figures.append(figures)
                self.cpu.append(cpu)
                for name, value in figures.items():
                    self._say(f"  {name}: {value:.4g}")
        finally:
            for ground in grounds.values():
                self._ground.drop_databases(ground.database_urls)

    def _loaded(self, name, orders):
        urls = self._ground.databases_for(f"growth_{name}", SERVICES)
        stored = Stored(lambda service: self._ground.superuser(f"growth_{name}_{service}"))
        seconds = stored.load(orders)
        self._say(f"  {orders:,} orders loaded in {seconds:.0f} s")
        return self._ground.with_databases(urls)

    def _turn(self, ground, *, since_ever):
        """Returns (processor ms an order by process, orders settled a second)."""
        with Shop(ground) as shop:
            shop.place(self._sizes.warm_up, clients=CLIENTS)
            loaded, cpu = shop.place(self._sizes.seconds, clients=CLIENTS)
            shop.require_sound(since_ever=since_ever)
        return cpu, loaded.settled_per_second
