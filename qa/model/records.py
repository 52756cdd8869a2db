"""The records of the model's states, and the locks of a scenario."""

from typing import NamedTuple

from qa.model import vocabulary as words

PERSON = -1
PER_ORDER = 3 + 5 * len(words.MESSAGES)
ROWS = {"orders": ("order", 0), "inventory": ("reservation", 1), "payments": ("payment", 2)}


class Broken(Exception):
    """An invariant is violated. The arguments are the invariant and a description of the violation."""


class Order(NamedTuple):
    """One order in all three services; the fields are numbers of interned values."""

    saga: int
    reservation: int
    payment: int
    money: int
    bits: int


class Transaction(NamedTuple):
    """An open transaction: what it will write and publish when it commits, and the locks that it holds until then."""

    number: int
    service: str
    cause: int | str
    handled: int
    write: tuple
    publishes: int
    holds: int
    inserts: bool


class Step(NamedTuple):
    """A step of one order: it becomes `after`, and a transaction begins unless `opens` is None."""

    words: tuple
    needs: int
    opens: int | None
    after: int
    progress: bool
    """Whether the step makes progress towards rest: such steps are always taken in the end."""


class Interned:
    """Assigns numbers to distinct values."""

    def __init__(self):
        self.values = []
        self._numbers = {}

    def __call__(self, value):
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class OpenSets(Interned):
    """Assigns numbers to sets of concurrently open transactions."""

    def __init__(self, transactions):
        super().__init__()
        self._transactions, self._held = transactions, {}

    def holders(self, opened):
        """Return the held locks, and the transactions."""
        if opened not in self._held:
            held = 0
            for transaction in self.values[opened]:
                held |= self._transactions.values[transaction].holds
            self._held[opened] = held, self.values[opened]
        return self._held[opened]

    def also(self, opened, transaction):
        """Return the set with one more."""
        return self(tuple(sorted((*self.values[opened], transaction))))

    def without(self, opened, transaction):
        """Return the set with one less."""
        rest = list(self.values[opened])
        rest.remove(transaction)
        return self(tuple(rest))


class Locks:
    """The locks of each transaction as bits, as queries.py of inventory and payments and use_cases.py take them."""

    def __init__(self, scenario):
        self._scenario = scenario
        self._taken = scenario.environment.locks

    def row(self, service, number):
        """The lock of the order's row. In inventory and payments it stands for the advisory lock and the row lock."""
        name, bit = ROWS[service]
        return 1 << number * PER_ORDER + bit if name in self._taken else 0

    def inbox(self, number, handled):
        """The lock of the inbox row of a message. A second handler waits for it, and then skips the message."""
        return handled << number * PER_ORDER + 3 if self._scenario.inbox and "inbox" in self._taken else 0

    def stock(self, product):
        """The lock of the product's stock row."""
        return 1 << len(self._scenario.orders) * PER_ORDER + product if "stock" in self._taken else 0


def with_levels(levels, changed):
    """Return the stock with some products' balances replaced."""
    after = list(levels)
    for product, balance in changed:
        after[product] = balance
    return tuple(after)
