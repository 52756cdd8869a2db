"""Twice what the suite can carry: `python -m qa.overload` beside a running suite (or `make overload`).

1. peak: closed loops of clients that ask for one order after the other. What counts is orders decided on their merits
   per second, from the first request to the last decision.
2. normal: half the peak, at fixed times whatever the answers are (an open loop): what latencies are when all is well.
3. overload: twice the peak, in the same way. Goodput is orders that the client was told of (201) and that were decided
   on their merits (CONFIRMED, or CANCELLED for want of stock or payment; not TIMEOUT) per second. What is refused must
   be refused at once, with Retry-After.
4. recovery: half the peak again. How long until latencies are normal for good?
5. rest: the invariants are counted.

When an order was taken and decided is read from the database of orders afterwards, so that nothing polls meanwhile.
The load generator runs on the same machine and takes its share of the processors. It ends by itself.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import urlsplit
from uuid import uuid4

import sqlalchemy

from qa.load import ADMIN, CUSTOMER, log_in, make_products, plan
from tests.books import await_rest, database_urls, report

GOAL_GOODPUT = 0.9
GOAL_RECOVERY_SECONDS = 10.0
MAX_CONNECTIONS = 1500
ANSWER_SECONDS = 10.0
DECISION_SECONDS = 90.0
PEAK_CLIENTS = (16, 64)
DIFFERENT_BODIES = 600
DECISIONS = sqlalchemy.text("""
    SELECT orders.id, extract(epoch FROM orders.created_at)::float AS created, orders.cancel_reason,
           extract(epoch FROM min(timeline.at))::float AS decided
    FROM orders LEFT JOIN timeline
      ON timeline.order_id = orders.id AND timeline.event IN ('order.confirmed', 'order.cancelled')
    WHERE orders.created_at >= to_timestamp(:since) GROUP BY orders.id
""")


@dataclass
class Answer:
    """One request: when it was due (time.time()), how many seconds its answer took from then, and what it was."""

    due: float
    seconds: float
    status: int  # 0: no answer
    order_id: str | None = None
    retry_after: bool = False
    detail: str = ""


class Generator:
    """POSTs orders over keep-alive connections; plain sockets under asyncio, which cost little beside the suite."""

    def __init__(self, url, token, bodies):
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._idle = deque()
        self._head = (
            f"POST /orders HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\n"
        )
        self._bodies = cycle([json.dumps(body).encode() for body in bodies])
        self._under_way = set()
        self.not_sent = 0
        self.answers = []

    async def closed_loop(self, clients, seconds):
        """Keep `clients` requests under way for `seconds`."""
        end = time.time() + seconds

        async def client():
            while time.time() < end:
                if (await self._post(time.time())).status != 201:
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open_loop(self, rate, seconds):
        """Send a request every 1/rate seconds for `seconds`; returns (began, ended) without waiting for answers."""
        began = time.time()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (pause := due - time.time()) > 0:
                await asyncio.sleep(pause)
            if len(self._under_way) >= MAX_CONNECTIONS:
                self.not_sent += 1
                continue
            task = asyncio.create_task(self._post(due))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return began, began + seconds

    async def last_answer(self):
        """Wait until everything that was sent is answered."""
        await asyncio.gather(*self._under_way)

    async def _post(self, due):
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._exchange(due)
        except (OSError, EOFError, TimeoutError) as error:
            answer = Answer(due, time.time() - due, 0, detail=type(error).__name__)
        self.answers.append(answer)
        return answer

    async def _exchange(self, due):
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        try:
            body = next(self._bodies)
            head = f"{self._head}Idempotency-Key: {uuid4()}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            content = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            writer.close()
            raise
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        status, said = int(status_line.split()[1]), json.loads(content)
        return Answer(due, time.time() - due, status, said.get("id"), "retry-after" in headers, said.get("detail", ""))


@dataclass
class Phase:
    """The answers to what was due in a stretch of time, and the decisions about orders taken or decided in it."""

    name: str
    began: float
    ended: float
    offered: float = 0.0

    def answers(self, generator):
        """Those to requests due in this stretch."""
        return [answer for answer in generator.answers if self.began <= answer.due < self.ended]

    def goodput(self, generator, decisions):
        """Orders decided on their merits per second of this stretch, of those whose clients know."""
        known = {answer.order_id for answer in generator.answers}
        good = [row for row in decisions if _is_good(row) and self.began <= row.decided < self.ended]
        return sum(str(row.id) in known for row in good) / (self.ended - self.began)


def read_decisions(since):
    """Return (id, created, decided, cancel_reason) of every order since, times as time.time()."""
    engine = sqlalchemy.create_engine(database_urls()["orders"], poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        return connection.execute(DECISIONS, {"since": since}).all()


def _is_good(row):
    return row.decided is not None and row.cancel_reason != "TIMEOUT"


def percentile(values, share):
    """Return a percentile in the values' unit; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


async def all_decided(since):
    """Wait until every order since is decided; returns the decisions."""
    deadline = time.time() + DECISION_SECONDS
    while True:
        decisions = read_decisions(since)
        if all(row.decided for row in decisions) or time.time() > deadline:
            return decisions
        await asyncio.sleep(0.5)


async def find_peak(generator, seconds):
    """Return the best of several closed loops, in orders decided on their merits per second."""
    best = 0.0
    for clients in PEAK_CLIENTS:
        began = time.time()
        await generator.closed_loop(clients, seconds)
        accepted = time.time() - began
        good = [row for row in await all_decided(began) if _is_good(row)]
        rate = len(good) / (max(row.decided for row in good) - began)
        print(f"closed loop of {clients}: {len(good)} orders, {len(good) / accepted:.0f}/s taken, {rate:.1f}/s decided")
        best = max(best, rate)
    return best


def recovery_seconds(normal, after, generator, decisions):
    """Return after how many seconds of `after` latencies were those of `normal` for good; None: never.

    Normal is twice the 95th percentile of before, and a tenth of a second for accepting, half of one for deciding.
    """
    accept_limit = 0.1 + 2 * percentile([answer.seconds for answer in normal.answers(generator)], 0.95)
    decide_limit = 0.5 + 2 * percentile(_times_to_decide(decisions, normal.began, normal.ended), 0.95)
    recovered, second = 0, 0
    while after.began + second < after.ended:
        began = after.began + second
        second += 1
        answers = Phase("", began, began + 1).answers(generator)
        refused = [answer for answer in answers if answer.status != 201]
        accept = percentile([answer.seconds for answer in answers], 0.95)
        decide = percentile(_times_to_decide(decisions, began, began + 1), 0.95)
        if refused or accept > accept_limit or decide > decide_limit:
            recovered = second
    return recovered if after.began + recovered < after.ended else None


def _times_to_decide(decisions, began, ended):
    return [(row.decided or time.time()) - row.created for row in decisions if began <= row.created < ended]


def print_phase(phase, generator, decisions):
    """Print what became of a phase's requests."""
    answers = phase.answers(generator)
    accepted = [answer for answer in answers if answer.status == 201]
    shed = [answer for answer in answers if answer.status == 503]
    other = Counter(f"{answer.status} {answer.detail}".strip() for answer in answers if answer.status not in {201, 503})
    late = [row for row in decisions if row.cancel_reason == "TIMEOUT" and phase.began <= row.created < phase.ended]
    seconds = phase.ended - phase.began
    goodput = phase.goodput(generator, decisions)
    print(f"{phase.name}: offered {phase.offered:.0f}/s for {seconds:.0f} s, goodput {goodput:.1f}/s")
    print(f"  accepted {len(accepted) / seconds:.1f}/s {_spread([answer.seconds for answer in accepted])}")
    print(f"  time to decide {_spread(_times_to_decide(decisions, phase.began, phase.ended))}, TIMEOUT {len(late)}")
    print(f"  refused with 503 {len(shed) / seconds:.1f}/s {_spread([answer.seconds for answer in shed])}")
    for detail, count in Counter(answer.detail for answer in shed).most_common():
        latencies = [answer.seconds for answer in shed if answer.detail == detail]
        print(f"    {count} x {detail} {_spread(latencies)}")
    print(f"  without Retry-After {sum(not answer.retry_after for answer in shed)}; others {dict(other) or 'none'}")


def print_course(phases, generator, decisions):
    """Print every second: what was accepted, refused and decided, and how many orders were undecided at its end."""
    print("second  phase     accepted  503  other  decided  TIMEOUT  undecided")
    began = phases[0].began
    for second in range(int(phases[-1].ended - began)):
        now = Phase("", began + second, began + second + 1)
        phase = next((phase.name for phase in phases if phase.began <= now.began + 0.01 < phase.ended), "")
        statuses = Counter(answer.status if answer.status in {201, 503} else 0 for answer in now.answers(generator))
        ends = [row for row in decisions if row.decided and now.began <= row.decided < now.ended]
        good = sum(map(_is_good, ends))
        waiting = sum(row.created < now.ended and (row.decided or now.ended) >= now.ended for row in decisions)
        print(
            f"{second:>6}  {phase:<9}{statuses[201]:>9}{statuses[503]:>5}{statuses[0]:>7}{good:>9}{len(ends) - good:>9}"
            f"{waiting:>11}"
        )


async def run(asked, generator):
    """Do everything but the invariants; returns whether the goals were met."""
    began = time.time()
    peak = asked.peak or await find_peak(generator, asked.peak_seconds)
    phases = []
    for name, share, seconds in (
        ("normal", 0.5, 10),
        ("overload", asked.factor, asked.seconds),
        ("recovery", 0.5, 20),
    ):
        phases.append(Phase(name, *await generator.open_loop(peak * share, seconds), offered=peak * share))
    normal, overload, after = phases
    await generator.last_answer()
    decisions = await all_decided(began)
    if asked.course:
        print_course(phases, generator, decisions)
    for phase in phases:
        print_phase(phase, generator, decisions)
    goodput, recovered = overload.goodput(generator, decisions), recovery_seconds(normal, after, generator, decisions)
    known = {str(row.id) for row in decisions}
    lost = [answer.order_id for answer in generator.answers if answer.status == 201 and answer.order_id not in known]
    refusals = [answer.seconds for answer in overload.answers(generator) if answer.status == 503]
    if not asked.peak:  # the machine may have become slower or faster meanwhile
        print("the peak again:")
        peak = (peak + await find_peak(generator, asked.peak_seconds)) / 2
    print(
        f"goodput {goodput:.1f} of {peak:.1f}: {goodput / peak:.0%}; recovered after {recovered} s; "
        f"refusals p99 {percentile(refusals, 0.99) * 1000:.0f} ms; lost {len(lost)}; not sent {generator.not_sent}"
    )
    return goodput >= GOAL_GOODPUT * peak and recovered is not None and recovered <= GOAL_RECOVERY_SECONDS and not lost


def _spread(seconds):
    return f"(median {percentile(seconds, 0.5) * 1000:.0f} ms, p99 {percentile(seconds, 0.99) * 1000:.0f} ms)"


def main():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m qa.overload", description=__doc__)
    parser.add_argument("--peak", type=float, default=0.0, help="orders per second; 0: find out")
    parser.add_argument("--peak-seconds", type=float, default=20.0)
    parser.add_argument("--factor", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--course", action="store_true", help="print every second")
    parser.add_argument("--url", default=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000"))
    asked = parser.parse_args()
    password = os.environ.get("DEMO_PASSWORD", "Demo-pass-2026!")
    admin, customer = log_in(asked.url, ADMIN, password), log_in(asked.url, CUSTOMER, password)
    bodies = plan(DIFFERENT_BODIES, make_products(admin), seed=1)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    good = asyncio.run(run(asked, Generator(asked.url, customer.token, bodies)))
    checks = await_rest(database_urls(), timeout=60.0)
    print(report(checks))
    return 0 if good and not any(check.ids for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
