"""Offers twice the load that the suite can handle: `python -m qa.overload` beside a running suite (or `make overload`).

1. peak: closed loops, in which each client places one order after the other. The peak is the number of orders per
   second that are confirmed, or cancelled for lack of stock or payment, from the first request to the last decision.
2. normal: an open loop, with requests at fixed times, at half the peak. It gives the normal latencies.
3. overload: an open loop at twice the peak. Goodput is the number of orders per second that were accepted (201)
   and then CONFIRMED, or CANCELLED because stock or payment is missing (not TIMEOUT). Refusals must be
   immediate and have a Retry-After.
4. recovery: half the peak again. It measures the time until latencies stay normal.
5. rest: the invariants are checked.

The times at which orders were accepted and decided are read from the orders database afterwards, so nothing polls
during the run. The load generator runs on the same machine and takes its share of the processors.
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

from qa.load import plan
from qa.support.client import ADMIN, CUSTOMER, log_in, make_products
from qa.support.consistency import await_rest, database_urls, report

GOAL_GOODPUT = 0.9
GOAL_RECOVERY_SECONDS = 10.0
MAX_CONNECTIONS = 1500
RESPONSE_SECONDS = 10.0
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
class Response:
    """The response to one request. `due` is the scheduled time (time.time()), `seconds` the latency from then on."""

    due: float
    seconds: float
    status: int  # 0: no response
    order_id: str | None = None
    retry_after: bool = False
    detail: str = ""


class Generator:
    """POSTs orders over keep-alive connections. It uses plain asyncio sockets, which take little CPU from the suite."""

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
        self.responses = []

    async def closed_loop(self, clients, seconds):
        """Keep `clients` requests in flight for `seconds`."""
        end = time.time() + seconds

        async def client():
            while time.time() < end:
                if (await self._post(time.time())).status != 201:
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open_loop(self, rate, seconds):
        """Send a request every 1/rate seconds for `seconds`; returns (began, ended) without waiting for responses."""
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

    async def last_response(self):
        """Wait until every request has its response."""
        await asyncio.gather(*self._under_way)

    async def _post(self, due):
        try:
            async with asyncio.timeout(RESPONSE_SECONDS):
                response = await self._exchange(due)
        except (OSError, EOFError, TimeoutError) as error:
            response = Response(due, time.time() - due, 0, detail=type(error).__name__)
        self.responses.append(response)
        return response

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
        status, body = int(status_line.split()[1]), json.loads(content)
        seconds = time.time() - due
        return Response(due, seconds, status, body.get("id"), "retry-after" in headers, body.get("detail", ""))


@dataclass
class Phase:
    """A span of time, with the responses to the requests due in it and the decisions made in it."""

    name: str
    began: float
    ended: float
    offered: float = 0.0

    def responses(self, generator):
        """The responses to the requests due in this phase."""
        return [response for response in generator.responses if self.began <= response.due < self.ended]

    def goodput(self, generator, decisions):
        """Orders decided on their merits per second of this phase. Only orders whose client got a 201 count."""
        known = {response.order_id for response in generator.responses}
        good = [row for row in decisions if _is_good(row) and self.began <= row.decided < self.ended]
        return sum(str(row.id) in known for row in good) / (self.ended - self.began)


def read_decisions(since):
    """Return (id, created, decided, cancel_reason) of every order created since then; times as time.time()."""
    engine = sqlalchemy.create_engine(database_urls()["orders"], poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        return connection.execute(DECISIONS, {"since": since}).all()


def _is_good(row):
    return row.decided is not None and row.cancel_reason != "TIMEOUT"


def percentile(values, share):
    """Return a percentile in the values' unit; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


async def all_decided(since):
    """Wait until every order created since then is decided; returns the decisions."""
    deadline = time.time() + DECISION_SECONDS
    while True:
        decisions = read_decisions(since)
        if all(row.decided for row in decisions) or time.time() > deadline:
            return decisions
        await asyncio.sleep(0.5)


async def find_peak(generator, seconds):
    """Return the highest rate of several closed loops, in orders decided on their merits per second."""
    best = 0.0
    for clients in PEAK_CLIENTS:
        began = time.time()
        await generator.closed_loop(clients, seconds)
        accepted = time.time() - began
        good = [row for row in await all_decided(began) if _is_good(row)]
        rate = len(good) / (max(row.decided for row in good) - began)
        print(
            f"closed loop of {clients}: {len(good)} orders, {len(good) / accepted:.0f}/s accepted, {rate:.1f}/s decided"
        )
        best = max(best, rate)
    return best


def recovery_seconds(normal, after, generator, decisions):
    """Return the seconds of phase `after` until latencies stayed normal; None if they did not.

    Normal is up to twice the 95th percentile of phase `normal`, plus 0.1 s for accepting or 0.5 s for deciding.
    """
    accept_limit = 0.1 + 2 * percentile([response.seconds for response in normal.responses(generator)], 0.95)
    decide_limit = 0.5 + 2 * percentile(_times_to_decide(decisions, normal.began, normal.ended), 0.95)
    recovered, second = 0, 0
    while after.began + second < after.ended:
        began = after.began + second
        second += 1
        responses = Phase("", began, began + 1).responses(generator)
        refused = [response for response in responses if response.status != 201]
        accept = percentile([response.seconds for response in responses], 0.95)
        decide = percentile(_times_to_decide(decisions, began, began + 1), 0.95)
        if refused or accept > accept_limit or decide > decide_limit:
            recovered = second
    return recovered if after.began + recovered < after.ended else None


def _times_to_decide(decisions, began, ended):
    return [(row.decided or time.time()) - row.created for row in decisions if began <= row.created < ended]


def print_phase(phase, generator, decisions):
    """Print the results of a phase."""
    responses = phase.responses(generator)
    accepted = [response for response in responses if response.status == 201]
    shed = [response for response in responses if response.status == 503]
    other = Counter(f"{each.status} {each.detail}".strip() for each in responses if each.status not in {201, 503})
    late = [row for row in decisions if row.cancel_reason == "TIMEOUT" and phase.began <= row.created < phase.ended]
    seconds = phase.ended - phase.began
    goodput = phase.goodput(generator, decisions)
    print(f"{phase.name}: offered {phase.offered:.0f}/s for {seconds:.0f} s, goodput {goodput:.1f}/s")
    print(f"  accepted {len(accepted) / seconds:.1f}/s {_spread([response.seconds for response in accepted])}")
    print(f"  time to decide {_spread(_times_to_decide(decisions, phase.began, phase.ended))}, TIMEOUT {len(late)}")
    print(f"  refused with 503 {len(shed) / seconds:.1f}/s {_spread([response.seconds for response in shed])}")
    for detail, count in Counter(response.detail for response in shed).most_common():
        latencies = [response.seconds for response in shed if response.detail == detail]
        print(f"    {count} x {detail} {_spread(latencies)}")
    print(f"  without Retry-After {sum(not response.retry_after for response in shed)}; others {dict(other) or 'none'}")


def print_course(phases, generator, decisions):
    """Print for every second the orders accepted, refused and decided, and those undecided at its end."""
    print("second  phase     accepted  503  other  decided  TIMEOUT  undecided")
    began = phases[0].began
    for second in range(int(phases[-1].ended - began)):
        now = Phase("", began + second, began + second + 1)
        phase = next((phase.name for phase in phases if phase.began <= now.began + 0.01 < phase.ended), "")
        statuses = Counter(each.status if each.status in {201, 503} else 0 for each in now.responses(generator))
        ends = [row for row in decisions if row.decided and now.began <= row.decided < now.ended]
        good = sum(map(_is_good, ends))
        waiting = sum(row.created < now.ended and (row.decided or now.ended) >= now.ended for row in decisions)
        print(
            f"{second:>6}  {phase:<9}{statuses[201]:>9}{statuses[503]:>5}{statuses[0]:>7}{good:>9}{len(ends) - good:>9}"
            f"{waiting:>11}"
        )


async def run(asked, generator):
    """Run all phases without the check of the invariants; returns whether the goals were met."""
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
    await generator.last_response()
    decisions = await all_decided(began)
    if asked.course:
        print_course(phases, generator, decisions)
    for phase in phases:
        print_phase(phase, generator, decisions)
    goodput, recovered = overload.goodput(generator, decisions), recovery_seconds(normal, after, generator, decisions)
    known = {str(row.id) for row in decisions}
    lost = [each.order_id for each in generator.responses if each.status == 201 and each.order_id not in known]
    refusals = [response.seconds for response in overload.responses(generator) if response.status == 503]
    if not asked.peak:  # the speed of the machine may have changed
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
    parser.add_argument("--peak", type=float, default=0.0, help="orders per second; 0: measure it")
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
