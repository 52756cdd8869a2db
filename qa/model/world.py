"""All possible next steps in a state of a scenario: the environment around the services' real decisions.

A state is a tuple of small numbers: one per order, one for the stock, one for the open transactions. Each number
identifies an interned record:

    order       (saga, reservation, payment, the provider's operations, one bit per message and stage)
    stock       ((on_hand, reserved) of each product, the adjustments made so far)
    open        a set of transactions, each with what it will write and the locks that it holds

A published message stays on the bus: it can be delivered to any of its consumers, in any order, and again at any time
without a bound. So one rule covers reordering, duplicates, a crash between commit and ack, a crash of the relay between
publish and delete, and a replay by an operator. With `inbox`, handled messages are skipped; without it, each delivery
reaches the rules again.

A transaction has two steps. First it begins: it takes its locks (or waits for their holders), reads and decides. Then
it commits what it decided, or crashes without a trace; only the provider remembers. This is exact for code that locks
everything it reads, because nothing it has read can change between its last lock and its commit. A transaction that
changes only the inbox is one step, because no other transaction can see the difference.

The provider is asked outside of any transaction, and its outcome is recorded in one. Here the recording begins with the
call: a crash of this transaction leaves a call whose outcome is recorded later, or by another process that has the
lease by then. What the provider has done can be recorded at any time, and again.
"""

from dataclasses import replace

from inventory.rules import ReservationMissing
from orders.saga import Saga
from payments.provider import Operation
from payments.rules import PaymentMissing
from qa.model import services
from qa.model import vocabulary as words
from qa.model.records import PERSON, Broken, Interned, Locks, OpenSets, Order, Step, Transaction, with_levels
from qa.model.symmetry import Renaming, symmetries


class World:
    """The state space of a scenario."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.environment = scenario.environment
        self.sagas, self.reservations, self.payments = Interned(), Interned(), Interned()
        self.orders, self.stocks, self.transactions = Interned(), Interned(), Interned()
        self.open = OpenSets(self.transactions)
        self.hits = {"reservation": {}, "payment": {}}
        """The outcomes of the rules: {(status, trigger): {(new status, published events)}}."""
        self._locks = Locks(scenario)
        self._steps, self._handled, self._person, self._ends = {}, {}, {}, {}
        self._renamings = [Renaming(self, *renaming) for renaming in symmetries(scenario)[1:]]

    def start(self):
        """Return the initial state, in which every order was just accepted."""
        orders = []
        for spec in self.scenario.orders:
            published = [words.CREATED, words.CONFIRMED, words.CANCELLED] if spec.foreign else [words.CREATED]
            bits = sum(self._bits_of(message) for message in published)
            saga = self.sagas(None if spec.foreign else Saga())
            orders.append(self.orders((saga, self.reservations(None), self.payments(None), 0, bits)))
        stock = tuple(None if units is None else (units, 0) for units in self.scenario.stock)
        return (*orders, self.stocks((stock, 0)), self.open(()))

    def next(self, state):
        """Return all possible steps, as (label, the state after it)."""
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
            for label, needs, transaction in self._adjustments(stock):
                if not held & needs:
                    found.append((label, (*orders, stock, self.open.also(opened, transaction))))
        for transaction in transactions:
            found.extend(self._endings(state, transaction))
        return found

    def canonical(self, state):
        """Return the representative of all states that differ from this one only in names."""
        return min(state, *(renaming(state) for renaming in self._renamings)) if self._renamings else state

    def can_progress(self, number, order, stock):
        """Whether a step that makes progress for this order can happen and be committed."""
        for step in self.steps(number, order, stock):
            if step.progress:
                ends = [step.after] if step.opens is None else self._commits(step.opens, step.after, stock)
                if any(self._is_progress(order, end if step.opens is None else end[1]) for end in ends):
                    return True
        return False

    def _is_progress(self, order, after):
        """Whether something irreversible was done: more bits are set, or a payment has moved forward."""
        before, then = Order(*self.orders.values[order]), Order(*self.orders.values[after])
        ranks = [services.rank_of(self.payments.values[it.payment]) for it in (before, then)]
        return then.bits != before.bits or ranks[0] < ranks[1]

    # Steps of one order

    def steps(self, number, order, stock):
        """Return all possible steps of an order, given the stock."""
        key = number, order, stock
        if key not in self._steps:
            found = (
                *self._deliveries(*key),
                *self._provider_outcomes(number, order),
                *self._commands(number, order),
                *self._refund_requests(number, order),
            )
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
                raise Broken("a confirmation finds its reservation and payment", f"{service}: {error}") from error
            outcome = None  # retried, then dead-lettered: handled without a change
        progress = not it.bits & handled
        label = f"{service} gets", number, message
        if outcome is None:
            done = self.orders(tuple(it._replace(bits=it.bits | handled)))
            yield Step((*label, "nothing"), needs, None, done, progress)
            return
        if service == "inventory":
            needs |= sum(self._locks.stock(product) for product, _ in outcome.write[1])
        if not self.environment.acks_after_commit or not self.environment.inbox_in_transaction:
            it = it._replace(bits=it.bits | handled)
        yield self._begin(label, it, service, handled, outcome, needs, progress)

    def _handle(self, number, order, stock, message, service):
        """Return what the handler's transaction would do; the real code runs once for each distinct input."""
        part = {
            "orders": (order.saga,),
            "inventory": (order.reservation, stock),
            "payments": (order.payment,),
        }
        key = number, message, service, *part[service]
        if key not in self._handled:
            try:
                self._handled[key] = self._run_rules(number, order, stock, message, service)
            except (ReservationMissing, PaymentMissing) as error:
                self._handled[key] = error
                self._hits("reservation" if service == "inventory" else "payment", None, message)(None, "an error")
        outcome = self._handled[key]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _run_rules(self, number, order, stock, message, service):
        spec = self.scenario.orders[number]
        if service == "orders":
            return None if spec.foreign else services.apply_reply(number, self.sagas.values[order.saga], message)
        if service == "inventory":
            was = self.reservations.values[order.reservation]
            hit = self._hits("reservation", was and was[0], message)
            outcome = services.handle_in_inventory(number, was, message, spec.lines, self.stocks.values[stock][0])
            hit(outcome, outcome and outcome.write[0][0])
            return outcome
        was = self.payments.values[order.payment]
        hit = self._hits("payment", was, message)
        outcome = services.handle_in_payments(number, was, message)
        hit(outcome, outcome and outcome.write)
        return outcome

    def _provider_outcome(self, number, order, result):
        key = number, result, order.payment, order.money
        if key not in self._handled:
            row = self.payments.values[order.payment]
            hit = self._hits("payment", row, result.partition(" ")[0])
            try:
                money = services.ask_provider(row, order.money, result)
            except services.ProviderRefuses as error:
                raise Broken("the provider is asked nothing that it refuses", f"{result}, {row}") from error
            outcome = services.record_outcome(number, row, result, money)
            hit(outcome, outcome and outcome.write)
            self._handled[key] = outcome
        return self._handled[key]

    def _provider_outcomes(self, number, order):
        """What the provider is asked; its outcome may be recorded late, and by two instances."""
        it = Order(*self.orders.values[order])
        if self.payments.values[it.payment] is None:
            return
        for result in self._possible_results(number, it):
            outcome = self._provider_outcome(number, it, result)
            if outcome is not None:
                needs = self._locks.row("payments", number)
                yield self._begin(
                    (f"the provider has {result}", number, result), it, "payments", 0, outcome, needs, True
                )

    def _possible_results(self, number, order):
        """The outcomes of what the provider has done, and of what it is asked now.

        An authorisation may also be asked for by a process that has lost its lease, while another one voids.
        """
        row = self.payments.values[order.payment]
        known = services.results_of(order.money)
        if result := services.result_of(row):
            known.add(result)
        waits = row.status == "PENDING" or services.operation_of(row) is Operation.AUTHORISE
        if waits and not order.money & (words.AUTHORIZED | words.DECLINED | words.VOIDED):
            known.update(self.scenario.orders[number].outcomes)
        return sorted(known)

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

    def _refund_requests(self, number, order):
        """What an administrator asks payments for."""
        it = Order(*self.orders.values[order])
        row = self.payments.values[it.payment]
        asked = {refund.number for refund in row.refunds} if row else set()
        for which, units in enumerate(self.scenario.orders[number].refunds if row else ()):
            key = number, "refund", which, it.payment, it.money
            if which not in asked and key not in self._handled:
                outcome = self._handled[key] = services.request_refund(number, row, which, units, it.money)
                if outcome is not None:
                    self._hits("payment", row, "refund requested")(outcome, outcome.write)
            if which not in asked and self._handled[key] is not None:
                label = "payments is told to", number, f"refund {which}"
                needs = self._locks.row("payments", number)
                yield self._begin(label, it, "payments", 0, self._handled[key], needs, False)

    def _begin(self, label, order, service, handled, outcome, holds, progress):
        """Begin a transaction. Its calls to the provider take effect at once, and a rollback does not undo them."""
        if len(set(outcome.publishes)) < len(outcome.publishes):
            raise Broken("no event is published twice", words.MESSAGES[outcome.publishes[0]][0])
        opens_a_payment = handled and (label[2] == words.CREATED or self.payments.values[order.payment] is None)
        inserts = service == "payments" and bool(opens_a_payment)
        publishes = sum(words.STAGES[message][0] for message in outcome.publishes)
        begun = Transaction(label[1], service, label[2], handled, outcome.write, publishes, holds, inserts)
        if service == "payments" and not handled:
            order = order._replace(money=outcome.money)
        return Step((*label, outcome.write), holds, self.transactions(begun), self.orders(tuple(order)), progress)

    def _hits(self, table, was, message):
        trigger = message if isinstance(message, str) else words.MESSAGES[message][0]
        seen = self.hits[table].setdefault((was, trigger), set())

        def hit(outcome, becomes):
            seen.add((becomes, tuple(words.MESSAGES[each][0] for each in outcome.publishes) if outcome else ()))

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

    # Ends of a transaction

    def _endings(self, state, transaction):
        *orders, stock, opened = state
        it = self.transactions.values[transaction]
        left = self.open.without(opened, transaction)
        key = transaction, orders[it.number], stock
        if key not in self._ends:
            self._ends[key] = list(self._commits(*key))
        label = it.number, it.cause
        for verb, order_after, stock_after in self._ends[key]:
            after = list(state)
            if it.number != PERSON:
                after[it.number] = order_after
            after[-2:] = stock_after, left
            yield (f"{it.service} {verb}", *label), tuple(after)
        yield (f"{it.service} crashes before its commit of", *label), (*orders, stock, left)

    def _commits(self, transaction, order, stock):
        """Yield the ways in which a transaction can commit, as (verb, order, stock): one, except in a mutant."""
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
                return  # it violates the unique key of reservation_lines, and is retried
            order = order._replace(reservation=self.reservations((status, held or (was[1] if was else ()))))
            stock = self.stocks((with_levels(levels, balances), made))
        elif it.inserts and self.payments.values[order.payment] is not None:
            return  # it violates the unique key of payments.order_id, and is retried
        else:
            order = order._replace(payment=self.payments(it.write))
        handled = order._replace(bits=order.bits | it.handled)
        yield "commits", self.orders(tuple(self._publish(handled, it.publishes))), stock
        if it.publishes and not self.environment.outbox_in_transaction:
            yield "crashes between commit and outbox of", self.orders(tuple(handled)), stock

    def _publish(self, order, publishes):
        bits = order.bits
        for message, (written, _, _) in enumerate(words.STAGES):
            if publishes & written:
                if bits & written:
                    raise Broken("no event is published twice", words.MESSAGES[message][0])
                bits |= self._bits_of(message)
        return order._replace(bits=bits)

    def _bits_of(self, message):
        written, on_bus, deleted = words.STAGES[message]
        return written if self.scenario.relay else written | on_bus | deleted
