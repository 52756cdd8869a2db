"""States that differ only in the names of equal orders or of equal products count as one."""

from dataclasses import replace
from itertools import permutations

from qa.model.records import PER_ORDER, PERSON, Order


def symmetries(scenario):
    """Return every renaming of (orders, products) that does not change the scenario; the identity comes first."""
    return [
        (orders, products)
        for orders in permutations(range(len(scenario.orders)))
        for products in permutations(range(len(scenario.stock)))
        if _is_same(scenario, orders, products)
    ]


def _is_same(scenario, orders, products):
    if any(products[product] != product for product, _ in scenario.adjustments):
        return False
    if any(scenario.stock[products[number]] != units for number, units in enumerate(scenario.stock)):
        return False
    for number, spec in enumerate(scenario.orders):
        other = scenario.orders[orders[number]]
        if {(products[product], quantity) for product, quantity in spec.lines} != set(other.lines):
            return False
        if replace(spec, lines=other.lines) != other:
            return False
    return True


class Renaming:
    """Renames the orders and products of a world's states."""

    def __init__(self, world, orders, products):
        self._world, self._orders, self._products = world, orders, products
        self._memory = {}

    def __call__(self, state):
        """Return the state with the new names."""
        *numbers, stock, opened = state
        renamed = [0] * len(numbers)
        for number, order in enumerate(numbers):
            renamed[self._orders[number]] = self._remember(self._order, order)
        return (*renamed, self._remember(self._stock, stock), self._remember(self._open, opened))

    def _remember(self, rename, number):
        key = rename.__name__, number
        if key not in self._memory:
            self._memory[key] = rename(number)
        return self._memory[key]

    def _order(self, number):
        world, order = self._world, Order(*self._world.orders.values[number])
        reservation = world.reservations(self._reservation(world.reservations.values[order.reservation]))
        return world.orders(tuple(order._replace(reservation=reservation)))

    def _reservation(self, reservation):
        return reservation and (reservation[0], self._levels(reservation[1]))

    def _levels(self, pairs):
        return tuple(sorted((self._products[product], value) for product, value in pairs))

    def _stock(self, number):
        levels, made = self._world.stocks.values[number]
        return self._world.stocks((tuple(level for _, level in self._levels(enumerate(levels))), made))

    def _open(self, number):
        transactions = (self._transaction(each) for each in self._world.open.values[number])
        return self._world.open(tuple(sorted(transactions)))

    def _transaction(self, number):
        it = self._world.transactions.values[number]
        write = it.write
        if it.service == "inventory":
            write = self._reservation(write[0]), self._levels(write[1])
        renamed = PERSON if it.number == PERSON else self._orders[it.number]
        return self._world.transactions(it._replace(number=renamed, write=write, holds=self._holds(it.holds)))

    def _holds(self, holds):
        renamed = 0
        stock = len(self._orders) * PER_ORDER
        for bit in range(holds.bit_length()):
            if holds >> bit & 1:
                if bit >= stock:
                    place = stock + self._products[bit - stock]
                else:
                    place = self._orders[bit // PER_ORDER] * PER_ORDER + bit % PER_ORDER
                renamed |= 1 << place
        return renamed
