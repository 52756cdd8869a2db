"""All that can happen next in a state of a scenario: the environment around the services' real decisions.

A state is a tuple of small numbers: one per order, one for the stock, one for the open transactions. Each stands for
a record that is kept once:

    order       (saga, reservation, payment, what the provider did, one bit per message and what became of it)
    stock       ((on_hand, reserved) of each product, which adjustments a person has made)
    open        a set of transactions, each with what it is going to write and the locks that it holds

A message that is on the bus stays there: it can be delivered to any of its consumers, in any order, and again at any
time and without a bound. So one rule covers reordering, duplicates, a crash after the commit and before the ack, a
relay that dies between publish and delete, and an operator's replay. With `inbox`, what was handled is skipped;
without, each delivery reaches the rules again.

A transaction is two steps. It begins: takes its locks (or must wait for whoever holds them), reads, decides. Then it
commits what it decided, or dies without a trace; the provider alone remembers. That is exact for code that locks all
that it reads: nothing that it has read can change between its last lock and its commit. A transaction that changes
nothing but the inbox is one step, because nobody can tell.
"""

from dataclasses import replace

from inventory.rules import ReservationMissing
from orders.saga import Saga
from payments.provider import ProviderRefuses
from payments.rules import PaymentMissing, State
from qa.model import services
from qa.model import vocabulary as words
from qa.model.records import PERSON, Broken, Interned, Locks, OpenSets, Order, Step, Transaction, with_levels
from qa.model.symmetry import Mirror, symmetries


class World:
    """A scenario in motion."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.environment = scenario.environment
        self.sagas, self.reservations, self.payments = Interned(), Interned(), Interned()
        self.orders, self.stocks, self.transactions = Interned(), Interned(), Interned()
        self.open = OpenSets(self.transactions)
        self.hits = {"reservation": {}, "payment": {}}
        """What the rules did: {(status, trigger): {(what it became, what was published)}}."""
        self._locks = Locks(scenario)
        self._steps, self._handled, self._person, self._ends = {}, {}, {}, {}
        self._mirrors = [Mirror(self, *renaming) for renaming in symmetries(scenario)[1:]]

    def start(self):
        """Return the state in which every order was just accepted."""
        orders = []
        for asked in self.scenario.orders:
            said = [words.CREATED, words.CONFIRMED, words.CANCELLED] if asked.foreign else [words.CREATED]
            bits = sum(self._on_its_way(message) for message in said)
            saga = self.sagas(None if asked.foreign else Saga())
            orders.append(self.orders((saga, self.reservations(None), self.payments(None), 0, bits)))
        stock = tuple(None if units is None else (units, 0) for units in self.scenario.stock)
        return (*orders, self.stocks((stock, 0)), self.open(()))

    def next(self, state):
        """Return what can happen, as (words, the state after it)."""
        *orders, stock, opened = state
        held, transactions = self.open.holders(opened)
        free = len(transactions) < self.scenario.workers
        found = []
        for number, order in enumerate(orders):
            for step in self.steps(number, order, stock):
                if held & step.needs or not (free or step.opens is None):
                    continue
                after = list(state)
                after[number] = step.after
                if step.opens is not None:
                    after[-1] = self.open.also(opened, step.opens)
                found.append((step.words, tuple(after)))
        if free:
            for said, needs, transaction in self._adjustments(stock):
                if not held & needs:
                    found.append((said, (*orders, stock, self.open.also(opened, transaction))))
        for transaction in transactions:
            found.extend(self._endings(state, transaction))
        return found

    def canonical(self, state):
        """Return the one state that stands for all that differ from this one in names only."""
        return min(state, *(mirror(state) for mirror in self._mirrors)) if self._mirrors else state

    def helps(self, number, order, stock):
        """Tell whether something can happen and be committed that brings the order nearer to its rest."""
        for step in self.steps(number, order, stock):
            if step.helps:
                ends = [step.after] if step.opens is None else self._commits(step.opens, step.after, stock)
                if any(self._is_nearer(order, end if step.opens is None else end[1]) for end in ends):
                    return True
        return False

    def _is_nearer(self, order, after):
        """Tell whether something was done that is done for good: more bits, or a payment no longer PENDING."""
        before, then = Order(*self.orders.values[order]), Order(*self.orders.values[after])
        waits = [(self.payments.values[it.payment] or ("",))[0] == State.PENDING for it in (before, then)]
        return then.bits != before.bits or waits == [True, False]

    # What can happen to one order

    def steps(self, number, order, stock):
        """Return all that can happen to an order, given the stock."""
        key = number, order, stock
        if key not in self._steps:
            found = (*self._deliveries(*key), *self._answers(number, order), *self._commands(number, order))
            self._steps[key] = tuple(step for step in found if step.opens is not None or step.after != order)
        return self._steps[key]

    def _deliveries(self, number, order, stock):
        bits = self.orders.values[order][-1]
        for message, (written, on_bus, deleted) in enumerate(words.STAGES):
            if bits & written and not bits & deleted:
                yield self._relay(number, order, message)
            if bits & on_bus:
                for service, handled in words.CONSUMERS[message]:
                    if not (self.scenario.inbox and bits & handled):
                        yield from self._deliver(number, order, stock, message, service, handled)

    def _relay(self, number, order, message):
        *rest, bits = self.orders.values[order]
        _, on_bus, deleted = words.STAGES[message]
        if bits & on_bus or not self.environment.relay_waits_for_confirm:
            return Step(("the relay deletes", number, message), 0, None, self.orders((*rest, bits | deleted)), True)
        return Step(("the relay publishes", number, message), 0, None, self.orders((*rest, bits | on_bus)), True)

    def _deliver(self, number, order, stock, message, service, handled):
        it = Order(*self.orders.values[order])
        needs = self._locks.row(service, number) | self._locks.inbox(number, handled)
        try:
            outcome = self._handle(number, it, stock, message, service)
        except (ReservationMissing, PaymentMissing) as error:
            if not self.scenario.orders[number].foreign:
                raise Broken("a confirmation finds what it confirms", f"{service}: {error}") from error
            outcome = None  # retried, then dead-lettered: it is dealt with, and nothing has changed
        except ProviderRefuses:
            return  # retried, until the message whose effect the provider already knows has come again
        helps = not it.bits & handled
        said = f"{service} gets", number, message
        if outcome is None:
            done = self.orders(tuple(it._replace(bits=it.bits | handled)))
            yield Step((*said, "nothing"), needs, None, done, helps)
            return
        if service == "inventory":
            needs |= sum(self._locks.stock(product) for product, _ in outcome.write[1])
        if not self.environment.acks_after_commit or not self.environment.inbox_in_transaction:
            it = it._replace(bits=it.bits | handled)
        yield self._begin(said, it, service, handled, outcome, needs, helps)

    def _handle(self, number, order, stock, message, service):
        """Return what the handler's transaction would do; each distinct question is asked of the real code once."""
        part = {
            "orders": (order.saga,),
            "inventory": (order.reservation, stock),
            "payments": (order.payment, order.money),
        }
        key = number, message, service, *part[service]
        if key not in self._handled:
            try:
                self._handled[key] = self._ask(number, order, stock, message, service)
            except ProviderRefuses as error:
                self._handled[key] = error
            except (ReservationMissing, PaymentMissing) as error:
                self._handled[key] = error
                self._hits("reservation" if service == "inventory" else "payment", None, message)(None, "an error")
        outcome = self._handled[key]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _ask(self, number, order, stock, message, service):
        asked = self.scenario.orders[number]
        if service == "orders":
            return None if asked.foreign else services.apply_reply(number, self.sagas.values[order.saga], message)
        if service == "inventory":
            was = self.reservations.values[order.reservation]
            hit = self._hits("reservation", was and was[0], message)
            outcome = services.settle_stock(number, was, message, asked.lines, self.stocks.values[stock][0])
            hit(outcome, outcome and outcome.write[0][0])
            return outcome
        was = self.payments.values[order.payment]
        hit = self._hits("payment", was, message)
        outcome = services.settle_payment(number, was, message, order.money)
        hit(outcome, outcome and outcome.write)
        return outcome

    def _answer(self, number, order, answer, bit):
        key = number, answer, order.payment, order.money
        if key not in self._handled:
            row = self.payments.values[order.payment]
            hit = self._hits("payment", row, answer)
            try:
                outcome = services.record_answer(number, row, answer, order.money | bit)
            except ProviderRefuses:
                outcome = None
            hit(outcome, outcome and outcome.write)
            self._handled[key] = outcome
        return self._handled[key]

    def _answers(self, number, order):
        """The provider is asked while a payment is PENDING; its answer may be recorded late, and by two replicas."""
        it = Order(*self.orders.values[order])
        row = self.payments.values[it.payment]
        asked = it.money & (words.HELD | words.REFUSED)
        if row is None or not (asked or row[0] == State.PENDING):
            return
        for answer, bit in (("approved", words.HELD), ("declined", words.REFUSED)):
            if answer not in self.scenario.orders[number].answers or (asked and not asked & bit):
                continue  # the same question has the same answer
            outcome = self._answer(number, it, answer, bit)
            if outcome is not None:
                needs = self._locks.row("payments", number)
                yield self._begin(
                    (f"the provider has {answer}", number, answer), it, "payments", 0, outcome, needs, True
                )

    def _commands(self, number, order):
        it = Order(*self.orders.values[order])
        for command in sorted(self.scenario.orders[number].commands):
            key = number, command, it.saga
            if key not in self._handled:
                self._handled[key] = services.apply_command(number, self.sagas.values[it.saga], command)
            outcome = self._handled[key]
            if outcome is not None:
                needs = self._locks.row("orders", number)
                yield self._begin(("orders is told to", number, str(command)), it, "orders", 0, outcome, needs, False)

    def _begin(self, said, order, service, handled, outcome, holds, helps):
        """A transaction begins, and asks the provider, whose memory no rollback touches, at once."""
        if len(set(outcome.says)) < len(outcome.says):
            raise Broken("no event is published twice", words.MESSAGES[outcome.says[0]][0])
        opens_a_payment = handled and (said[2] == words.CREATED or self.payments.values[order.payment] is None)
        inserts = service == "payments" and bool(opens_a_payment)
        says = sum(words.STAGES[message][0] for message in outcome.says)
        begun = Transaction(said[1], service, said[2], handled, outcome.write, says, holds, inserts)
        if service == "payments":
            order = order._replace(money=outcome.money)
        return Step((*said, outcome.write), holds, self.transactions(begun), self.orders(tuple(order)), helps)

    def _hits(self, table, was, message):
        trigger = message if isinstance(message, str) else words.MESSAGES[message][0]
        seen = self.hits[table].setdefault((was, trigger), set())

        def hit(outcome, becomes):
            seen.add((becomes, tuple(words.MESSAGES[each][0] for each in outcome.says) if outcome else ()))

        return hit

    def _adjustments(self, stock):
        if stock not in self._person:
            self._person[stock] = tuple(self._find_adjustments(stock))
        return self._person[stock]

    def _find_adjustments(self, stock):
        levels, made = self.stocks.values[stock]
        for which, (product, delta) in enumerate(self.scenario.adjustments):
            if made & 1 << which or levels[product] is None:
                continue
            after = services.adjust(levels[product], delta)
            if after is not None:
                needs = self._locks.stock(product)
                write = ((product, after), 1 << which)
                begun = Transaction(PERSON, "person", which, 0, write, 0, needs, inserts=False)
                yield ("a person adjusts", PERSON, which), needs, self.transactions(begun)

    # How a transaction ends

    def _endings(self, state, transaction):
        *orders, stock, opened = state
        it = self.transactions.values[transaction]
        left = self.open.without(opened, transaction)
        key = transaction, orders[it.number], stock
        if key not in self._ends:
            self._ends[key] = list(self._commits(*key))
        said = it.number, it.cause
        for verb, order_after, stock_after in self._ends[key]:
            after = list(state)
            if it.number != PERSON:
                after[it.number] = order_after
            after[-2:] = stock_after, left
            yield (f"{it.service} {verb}", *said), tuple(after)
        yield (f"{it.service} dies before its commit of", *said), (*orders, stock, left)

    def _commits(self, transaction, order, stock):
        """Yield the ways in which it can commit, as (words, order, stock): one, unless it is a mutant."""
        it, order = self.transactions.values[transaction], Order(*self.orders.values[order])
        levels, made = self.stocks.values[stock]
        if it.number == PERSON:
            yield "commits", 0, self.stocks((with_levels(levels, [it.write[0]]), made | it.write[1]))
            return
        if it.service == "orders":
            order = order._replace(saga=self.sagas(replace(self.sagas.values[order.saga], **dict(it.write))))
        elif it.service == "inventory":
            (status, held), balances = it.write
            was = self.reservations.values[order.reservation]
            if status == "RESERVED" and was and was[1]:
                return  # the unique key of reservation_lines: it fails, and is tried again
            order = order._replace(reservation=self.reservations((status, held or (was[1] if was else ()))))
            stock = self.stocks((with_levels(levels, balances), made))
        elif it.inserts and self.payments.values[order.payment] is not None:
            return  # the unique key of payments.order_id: it fails, and is tried again
        else:
            order = order._replace(payment=self.payments(it.write))
        handled = order._replace(bits=order.bits | it.handled)
        yield "commits", self.orders(tuple(self._say(handled, it.says))), stock
        if it.says and not self.environment.outbox_in_transaction:
            yield "dies between commit and outbox of", self.orders(tuple(handled)), stock

    def _say(self, order, says):
        bits = order.bits
        for message, (written, _, _) in enumerate(words.STAGES):
            if says & written:
                if bits & written:
                    raise Broken("no event is published twice", words.MESSAGES[message][0])
                bits |= self._on_its_way(message)
        return order._replace(bits=bits)

    def _on_its_way(self, message):
        written, on_bus, deleted = words.STAGES[message]
        return written if self.scenario.relay else written | on_bus | deleted
