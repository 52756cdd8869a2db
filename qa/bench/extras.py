"""The parts that are measured after the rounds. Each has its own turns, and adds one dict of figures for each turn."""

from dataclasses import asdict

from qa.bench import gateways, growth, memory, plans


class Extras:
    """The parts, measured on the same servers; their figures are added to `measured`."""

    def __init__(self, bench_servers, measured, say, *, tiny=False, load=None):
        self._bench_servers, self._measured, self._say = bench_servers, measured, say
        self._tiny, self._load = tiny, load or memory.Load()

    def run(self, names):
        """Measure these parts. A part that fails is a problem of the run, and does not affect the others."""
        for name in names:
            self._say(name)
            try:
                PARTS[name](self)
            except Exception as error:  # noqa: BLE001 - the other parts are measured all the same
                self._say(f"the figures of {name} do not count: {type(error).__name__}: {error}")
                self._measured.problems.append(f"{name}: {error}")

    def _growth(self):
        turns = growth.Growth(self._bench_servers, growth.TINY if self._tiny else growth.Sizes(), self._say)
        turns.measure()
        self._measured.turns += turns.figures
        self._measured.cpu += turns.cpu

    def _plans(self):
        sizes = plans.TINY if self._tiny else plans.Sizes()
        statements = plans.measure(self._bench_servers, sizes, self._say)
        self._measured.plans = [asdict(one) | {"grows": one.grows} for one in statements]
        growing = sum(one.grows for one in statements)
        self._measured.turns.append(
            self._report({"plans: statements": len(statements), "plans: statements that grow": growing})
        )

    def _gateways(self):
        lengths = gateways.TINY if self._tiny else gateways.Lengths()
        found = [self._report(figures) for figures in gateways.measure(self._bench_servers, lengths)]
        self._measured.turns += found

    def _memory(self):
        figures, self._measured.memory = memory.measure(self._bench_servers, self._load, self._say)
        self._measured.turns.append(self._report(figures))

    def _report(self, figures):
        for name, value in figures.items():
            self._say(f"  {name}: {value:.4g}")
        return figures


PARTS = {"growth": Extras._growth, "plans": Extras._plans, "gateways": Extras._gateways, "memory": Extras._memory}
