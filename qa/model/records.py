"""The records that the model's states are made of, and the locks of a scenario."""

from typing import NamedTuple

from qa.model import vocabulary as words

PERSON = -1
PER_ORDER = 3 + 5 * len(words.MESSAGES)
ROWS = {"orders": ("order", 0), "inventory": ("reservation", 1), "payments": ("payment", 2)}


class Broken(Exception):
    """A promise does not hold; the arguments are the promise and what was seen instead."""


class Order(NamedTuple):
    """One order in all three services; the parts are numbers of interned values."""

    saga: int
    reservation: int
    payment: int
    money: int
    bits: int


class Transaction(NamedTuple):
    """An open transaction: what it writes and says when it commits, and what it locks until then."""

    number: int
    service: str
    cause: int | str
    handled: int
    write: tuple
    says: int
    holds: int
    inserts: bool


class Step(NamedTuple):
    """What can happen to one order: it becomes `after`, and a transaction begins unless `opens` is None."""

    words: tuple
    needs: int
    opens: int | None
    after: int
    helps: bool
    """Whether it brings the order nearer to its rest: such steps are always taken in the end."""


class Interned:
    """Numbers the distinct values that it is given."""

    def __init__(self):
        self.values = []
        self._numbers = {}

    def __call__(self, value):
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class OpenSets(Interned):
    """Numbers the sets of transactions that are open at the same time."""

    def __init__(self, transactions):
        super().__init__()
        self._transactions, self._held = transactions, {}

    def holders(self, opened):
        """Return the locks that are held, and the transactions."""
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
    """What each transaction locks, one bit a thing, as queries.py of inventory and payments and use_cases.py do it."""

    def __init__(self, scenario):
        self._scenario = scenario
        self._taken = scenario.environment.locks

    def row(self, service, number):
        """The order's row; in inventory and payments the advisory lock and the row behind it."""
        name, bit = ROWS[service]
        return 1 << number * PER_ORDER + bit if name in self._taken else 0

    def inbox(self, number, handled):
        """The inbox row of a message and handler: who comes second waits, and then finds it handled."""
        return handled << number * PER_ORDER + 3 if self._scenario.inbox and "inbox" in self._taken else 0

    def stock(self, product):
        """The product's stock row."""
        return 1 << len(self._scenario.orders) * PER_ORDER + product if "stock" in self._taken else 0


def with_levels(levels, changed):
    """Return the stock with some products' balances replaced."""
    after = list(levels)
    for product, balance in changed:
        after[product] = balance
    return tuple(after)
