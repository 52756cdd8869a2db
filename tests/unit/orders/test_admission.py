"""Admission control, on a simulated clock: who places an order, who waits, who is refused, and where the limit goes."""

from collections import deque
from datetime import timedelta
from statistics import median

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from contracts.errors import Overloaded
from orders.admission import COUNT_SECONDS, FIRST_LIMIT, LOWEST_LIMIT, MOST_PLACING, PROBES, Admission, Limit, Waiting

DEADLINE = timedelta(seconds=30)
TARGET = timedelta(seconds=1.0)
STEP = 0.01
WAIT_SECONDS = 3.5
STALLED = Limit(1000, TARGET, DEADLINE).while_stalled


class Shop:
    """A machine that decides `rate` orders a second, one after the other, none sooner than `least` seconds.

    `stuck` orders are never decided. Times are simulated.
    """

    def __init__(self, rate=0.0, least=0.0, highest=1000, most_waiting=256, stuck=0, processes=1):
        self.now, self.rate, self.least, self.stuck = 100.0, rate, least, stuck
        self.undecided = deque()
        self.admissions = [
            Admission(Limit(highest, TARGET, DEADLINE, self.clock), most_waiting, self.clock) for _ in range(processes)
        ]
        self.admission, self.limit = self.admissions[0], self.admissions[0].limit
        self.clients = {}  # those that wait: ticket -> (process, until)
        self.decided, self.times, self.refusals, self.longest = 0, [], [], 0.0
        self._budget = 0.0
        self._turn = self._decider = 0

    def clock(self):
        return self.now

    def count(self):
        late_after = self.limit.late_after.total_seconds()
        late = sum(self.now - placed > late_after for placed in self.undecided)
        return Waiting(len(self.undecided) + self.stuck, late + self.stuck)

    def place(self):
        """Let a client place an order; returns True if it is placed, None if it waits, False if it is refused."""
        self._turn += 1
        process = self.admissions[self._turn % len(self.admissions)]
        process.recount(self.count)
        ticket = object()
        try:
            process.require_capacity()
            if process.enter(ticket, WAIT_SECONDS):
                self._store(process)
                return True
        except Overloaded:
            self.refusals.append(0.0)
            return False
        self.clients[ticket] = process, self.now + WAIT_SECONDS
        return None

    def step(self):
        """Decide what can be decided in one step of time. Returns the numbers of orders placed and refused in it."""
        self.now += STEP
        self._budget = min(self._budget + self.rate * STEP, 1 + self.rate * STEP)
        while self._budget >= 1 and self.undecided and self.now - self.undecided[0] >= self.least:
            self._budget -= 1
            self._decide(self.now - self.undecided.popleft())
        return self._serve(), self._give_up()

    def closed_loop(self, clients, seconds):
        """`clients` place one order after the other, and again as soon as they are refused. One joins in each step."""
        free, known = 0, len(self.clients)
        for _ in range(int(seconds / STEP)):
            if known < clients:
                free, known = free + 1, known + 1
            for _ in range(free):
                free -= 0 if self.place() is not None else 1
                if len(self.refusals) > 1000:
                    return
            free += sum(self.step())

    def open_loop(self, rate, seconds):
        """New clients arrive at this rate."""
        arriving = 0.0
        for _ in range(int(seconds / STEP)):
            arriving += rate * STEP
            while arriving >= 1:
                arriving -= 1
                self.place()
            self.step()

    def _decide(self, seconds):
        self.decided += 1
        self.times.append(seconds)
        self._decider += 1
        self.admissions[self._decider % len(self.admissions)].decided(seconds)

    def _serve(self):
        served = 0
        for process in self.admissions:
            process.recount(self.count)
            while (ticket := process.admitted()) is not None:
                _, until = self.clients.pop(ticket)
                self.longest = max(self.longest, WAIT_SECONDS - (until - self.now))
                self._store(process)
                served += 1
        return served

    def _give_up(self):
        late = [ticket for ticket, (_, until) in self.clients.items() if self.now >= until]
        for ticket in late:
            process, _ = self.clients.pop(ticket)
            process.leave(ticket)
            self.refusals.append(WAIT_SECONDS)
        return len(late)

    def _store(self, process):
        self.undecided.append(self.now)
        process.placed()
        process.ended()


def placed(shop, tries):
    return sum(shop.place() is True for _ in range(tries))


def test_orders_are_placed_up_to_the_limit_and_the_next_ones_wait():
    shop = Shop()
    assert placed(shop, FIRST_LIMIT + 10) == FIRST_LIMIT
    assert (shop.admission.waiting, shop.refusals) == (10, [])


def test_a_decision_lets_in_the_order_that_has_waited_longest():
    shop = Shop(highest=1)
    assert shop.place()
    for _ in range(3):
        shop.place()
    first, *others = shop.clients
    shop.admission.decided(0.1)
    assert shop.admission.admitted() is first
    assert shop.admission.admitted() is None
    shop.admission.ended()  # without an order: it was refused for its price
    assert shop.admission.admitted() is others[0]


def test_a_new_order_does_not_overtake_those_that_wait():
    shop = Shop(highest=1)
    shop.place()
    shop.place()
    shop.admission.decided(0.1)
    assert shop.place() is None


def test_the_queue_is_bounded():
    shop = Shop(highest=1, most_waiting=2)
    assert [shop.place() for _ in range(4)] == [True, None, None, False]


def test_an_order_whose_caller_has_no_time_is_refused_at_once():
    shop = Shop(highest=1)
    shop.place()
    with pytest.raises(Overloaded, match="Nothing was done") as refusal:
        shop.admission.enter(object(), 0.0)
    assert refusal.value.retry_after == 1


def test_after_a_wait_in_vain_orders_are_refused_at_once_until_one_is_let_in():
    shop = Shop(highest=1)
    assert [shop.place(), shop.place()] == [True, None]
    for _ in range(int(WAIT_SECONDS / STEP) + 1):
        shop.step()
    assert shop.refusals == [WAIT_SECONDS]
    assert shop.place() is False
    shop.undecided.clear()
    shop.now += COUNT_SECONDS
    assert [shop.place(), shop.place()] == [True, None]


def test_an_order_does_not_join_a_queue_whose_first_has_hardly_any_time_left():
    shop = Shop(highest=1)
    shop.place()
    shop.place()
    shop.now += WAIT_SECONDS - 0.4
    assert shop.place() is False


def test_one_count_serves_many_requests():
    shop, counted = Shop(), []
    for _ in range(50):
        shop.admission.recount(lambda: counted.append(1) or Waiting())
        shop.now += COUNT_SECONDS / 10
    assert len(counted) == 5


def test_the_previous_count_is_used_while_the_database_does_not_respond():
    shop = Shop(highest=5)
    shop.stuck = 5
    assert shop.place() is None
    shop.now += COUNT_SECONDS

    def down():
        assert not shop.admission.has_room  # a concurrent request
        raise ConnectionError

    with pytest.raises(ConnectionError):
        shop.admission.recount(down)
    assert not shop.admission.has_room


def test_a_count_that_took_so_long_that_another_began_is_ignored():
    shop = Shop(highest=10)
    placed(shop, 8)

    def slow():
        shop.now += COUNT_SECONDS
        shop.admission.recount(shop.count)  # of another call, which overtakes this one
        return Waiting()

    shop.now += COUNT_SECONDS
    shop.admission.recount(slow)
    assert placed(shop, 5) == 2


def test_a_process_places_only_so_many_orders_at_once():
    shop = Shop()
    assert [shop.admission.enter(object(), 1.0) for _ in range(MOST_PLACING + 1)] == [True] * MOST_PLACING + [False]
    shop.admission.ended()
    assert shop.admission.admitted() is not None


def test_orders_of_other_processes_are_seen_at_the_next_count():
    shop = Shop(highest=10, processes=2)
    assert placed(shop, 16) == 16  # eight in each process
    shop.now += COUNT_SECONDS
    assert placed(shop, 2) == 0


def test_stuck_orders_delay_no_others_while_others_are_decided():
    shop = Shop(rate=60, least=0.3, stuck=STALLED)
    shop.now += DEADLINE.total_seconds()  # nothing was decided for long
    assert placed(shop, PROBES + 5) == PROBES
    shop.closed_loop(clients=32, seconds=10)
    assert shop.refusals == []
    assert shop.decided > 0.8 * 60 * 10


def test_there_is_a_highest_number_of_undecided_orders_stuck_ones_included():
    shop = Shop(rate=20, stuck=9, highest=10)
    assert placed(shop, 5) == 1


def test_without_decisions_all_undecided_orders_count():
    shop = Shop(rate=0)
    shop.closed_loop(clients=32, seconds=30)
    assert len(shop.undecided) <= STALLED + PROBES * 12
    assert median(shop.refusals) == 0.0


def test_a_small_shop_refuses_no_order_while_a_part_is_restarted():
    shop = Shop(rate=60, least=0.2)
    shop.open_loop(rate=5, seconds=20)
    shop.rate = 0
    shop.open_loop(rate=5, seconds=20)
    shop.rate = 60
    shop.open_loop(rate=5, seconds=20)
    assert shop.refusals == []
    assert len(shop.undecided) < LOWEST_LIMIT


@settings(deadline=None, max_examples=20, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(8, 250), st.floats(0.05, 0.5), st.floats(0.1, 2.0), st.integers(1, 3))
def test_a_closed_loop_is_slowed_to_the_pace_of_the_decisions_and_never_refused(rate, least, share, processes):
    """As many clients as a process lets in in two seconds; any machine.

    Processes do not balance their lines: the longest one may hold all clients.
    """
    clients = max(1, int(share * rate / processes))
    shop = Shop(rate=rate, least=least, processes=processes, most_waiting=1000)
    shop.closed_loop(clients, seconds=20 + 500 / rate)
    assert shop.refusals == []
    shop.times.clear()
    before = shop.decided
    shop.closed_loop(clients, seconds=8)
    assert shop.refusals == []
    assert shop.decided - before >= 0.95 * rate * 8 - 2
    # The limit has converged: deciding takes the target, or up to a sixth of the deadline while the limit still
    # finds out whether fewer orders would be decided sooner.
    assert 0.6 * TARGET.total_seconds() < median(shop.times) < 1.2 * DEADLINE.total_seconds() / 6
    assert max(shop.times) < DEADLINE.total_seconds() / 3


@pytest.mark.parametrize("slower", [4, 8])
def test_a_machine_that_becomes_slower_cancels_no_order_and_refuses_none(slower):
    shop = Shop(rate=64, least=0.2)
    shop.closed_loop(clients=16, seconds=10)
    shop.rate /= slower
    shop.times.clear()
    shop.closed_loop(clients=16, seconds=30)
    assert shop.refusals == []
    assert max(shop.times) < DEADLINE.total_seconds() / 2
    assert shop.limit.value < 2 * TARGET.total_seconds() * shop.rate + LOWEST_LIMIT


def test_a_slow_part_that_fewer_orders_would_not_speed_up_does_not_lower_the_rate():
    """A payment provider that takes two seconds, for many payments at once."""
    shop = Shop(rate=50, least=2.0)
    shop.open_loop(rate=45, seconds=60)
    before = shop.decided
    shop.open_loop(rate=45, seconds=20)
    assert shop.decided - before > 0.8 * 45 * 20


def test_an_open_flood_is_refused_mostly_at_once_and_does_not_lower_the_rate():
    shop = Shop(rate=64, least=0.2)
    shop.open_loop(rate=32, seconds=5)
    assert shop.refusals == []
    before = shop.decided
    shop.open_loop(rate=192, seconds=40)
    assert shop.decided - before > 0.95 * 64 * 40
    assert median(shop.refusals) == 0.0
    assert max(shop.times) < 3 * TARGET.total_seconds()
    shop.refusals.clear()
    shop.open_loop(rate=32, seconds=4)
    shop.refusals.clear()
    shop.open_loop(rate=32, seconds=10)
    assert shop.refusals == []


def test_the_limit_is_not_raised_by_a_load_that_does_not_use_it_up():
    shop = Shop(rate=64, least=0.2)
    shop.open_loop(rate=20, seconds=30)
    assert shop.limit.value == FIRST_LIMIT


def test_the_limits_keep_their_order_with_a_low_setting():
    limit = Limit(3, TARGET, DEADLINE)
    for _ in range(20):
        limit.observe(100.0)
    limit.adjust(3)
    assert limit.value == 3
