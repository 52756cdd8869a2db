"""What is measured after the rounds: each part takes its own turns, and leaves one dict of figures for each of them."""

from dataclasses import asdict

from qa.bench import gateways, growth, memory, plans


class Extras:
    """The parts on one ground; `measured` takes their figures in."""

    def __init__(self, ground, measured, say, *, tiny=False, load=None):
        self._ground, self._measured, self._say = ground, measured, say
        self._tiny, self._load = tiny, load or memory.Load()

    def run(self, names):
        """Measure these parts. What fails is a problem of the run, and spoils no other part."""
        for name in names:
            self._say(name)
            try:
                PARTS[name](self)
            except Exception as error:  # noqa: BLE001 - the other parts' figures need not suffer
                self._say(f"what was measured of {name} does not count: {type(error).__name__}: {error}")
                self._measured.problems.append(f"{name}: {error}")

    def _growth(self):
        turns = growth.Growth(self._ground, growth.TINY if self._tiny else growth.Sizes(), self._say)
        turns.measure()
        self._measured.turns += turns.figures
        self._measured.cpu += turns.cpu

    def _plans(self):
        sizes = plans.TINY if self._tiny else plans.Sizes()
        statements = plans.measure(self._ground, sizes, self._say)
        self._measured.plans = [asdict(one) | {"grows": one.grows} for one in statements]
        growing = sum(one.grows for one in statements)
        self._measured.turns.append(
            self._told({"plans: statements": len(statements), "plans: statements that grow": growing})
        )

    def _gateways(self):
        lengths = gateways.TINY if self._tiny else gateways.Lengths()
        found = [self._told(figures) for figures in gateways.measure(self._ground, lengths)]
        self._measured.turns += found

    def _memory(self):
        figures, self._measured.memory = memory.measure(self._ground, self._load, self._say)
        self._measured.turns.append(self._told(figures))

    def _told(self, figures):
        for name, value in figures.items():
            self._say(f"  {name}: {value:.4g}")
        return figures


PARTS = {"growth": Extras._growth, "plans": Extras._plans, "gateways": Extras._gateways, "memory": Extras._memory}
