"""Process faults: services killed at random and at named points, or stopped and continued; servers restarted."""

import contextlib
import random
import signal
import time

import psycopg2
import redis

from contracts.services import PROCESSES
from deploy.local.process import signal_process, wait_until
from qa.chaos.crash_points import POINTS, TIMER_BEFORE_COMMIT, ArmedPoint, Point
from qa.chaos.faults import Fault, FaultNotInjected
from qa.chaos.sandbox import Instance, Sandbox

REACHED_WITHIN = 12.0  # seconds until a service must reach an armed point
DIES_WITHIN = 5.0
# SKIP LOCKED: a different lock order than the services' could cause a deadlock. After its clock has jumped back by a
# day, PostgreSQL would detect the deadlock, or apply a timeout, only a day later.
EXPIRE_DEADLINES = """
    UPDATE orders SET deadline_at = clock_timestamp() - interval '1 second'
    WHERE id IN (SELECT id FROM orders WHERE status = 'CREATED' FOR UPDATE SKIP LOCKED)
"""


class KillService:
    """SIGKILL at a random time, of one process of the service or of both."""

    def __init__(self, service: str) -> None:
        self.name = f"kill -9 of {service}"
        self._service = service

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        targets = [one for one in sandbox.instances if one.service == self._service]
        if chance.random() < 0.7:
            targets = [chance.choice(targets)]
        dead = {one: pid for one in targets if (pid := one.signal(signal.SIGKILL))}
        if not dead:
            raise FaultNotInjected(f"{self._service} was down")
        for one, pid in dead.items():
            one.await_restart(pid)
        return f"SIGKILL of {' and '.join(one.name for one in dead)}"


class KillAtPoint:
    """SIGKILL exactly at a named point: the service kills itself (see crashable.py)."""

    def __init__(self, point: Point) -> None:
        self.name = f"kill -9: {point.words}"
        self.point = point

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        service = chance.choice(self.point.services)
        with sandbox.exclusively(f"{service}.{self.point.name}"):
            before = {one: one.pid for one in sandbox.instances if one.service == service}
            armed_point = ArmedPoint(sandbox.folder, service, self.point)
            armed_point.arm()
            try:
                self._await_hit(sandbox, armed_point)
            finally:
                armed_point.disarm()
            wait_until(lambda: any(one.pid != pid for one, pid in before.items()), seconds=DIES_WITHIN)
            for one in before:
                one.await_restart(0)
        return f"{service} killed: {self.point.words}"

    def _await_hit(self, sandbox: Sandbox, armed_point: ArmedPoint) -> None:
        if not wait_until(armed_point.hit.exists, seconds=REACHED_WITHIN):
            raise FaultNotInjected(f"{armed_point.armed.name} was not reached within {REACHED_WITHIN:.0f} s")


class KillAtExpiry(KillAtPoint):
    """Kill the expiry timer. Payments is stopped and open orders' deadlines are set to now, so the timer has work."""

    def _await_hit(self, sandbox: Sandbox, armed_point: ArmedPoint) -> None:
        with stopped([one for one in sandbox.instances if one.service == "payments"]):
            end = time.monotonic() + REACHED_WITHIN
            while not armed_point.hit.exists():
                expire_deadlines(sandbox)
                wait_until(armed_point.hit.exists, seconds=0.5)
                if time.monotonic() > end:
                    raise FaultNotInjected(f"{armed_point.armed.name} was not reached within {REACHED_WITHIN:.0f} s")


class DeadlinesFallDue:
    """Set the deadlines of all open orders to now: expiry, replies and cancellations race."""

    name = "deadlines of open orders fall due"

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        count = 0
        for _ in range(chance.randint(3, 10)):
            count += expire_deadlines(sandbox)
            time.sleep(chance.uniform(0.1, 0.5))
        if not count:
            raise FaultNotInjected("no order was open")
        return f"{count} deadlines set to now"


class StopService:
    """SIGSTOP, and later SIGCONT: the process continues as if no time had passed."""

    def __init__(self, name: str, shortest: float, longest: float) -> None:
        self.name = name
        self._shortest, self._longest = shortest, longest
        self.long = longest > 25

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        target = chance.choice(sandbox.instances)
        seconds = chance.uniform(self._shortest, self._longest)
        with stopped([target]) as pids:
            if not pids:
                raise FaultNotInjected(f"{target.name} was down")
            time.sleep(seconds)
        return f"SIGSTOP of {target.name} for {seconds:.1f} s"


class RestartBroker:
    name = "RabbitMQ restarted gracefully"

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        return _bounce(sandbox, "rabbitmq", lambda server: server.stop(), chance.uniform(0.0, 3.0))


class KillBroker:
    name = "kill -9 of RabbitMQ"

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        return _bounce(sandbox, "rabbitmq", lambda server: server.kill(), chance.uniform(0.0, 3.0))


class StopPostgresAtOnce:
    name = "PostgreSQL: immediate stop"

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        return _bounce(sandbox, "postgres", _quit, chance.uniform(0.0, 4.0))


class KillPostgres:
    name = "kill -9 of PostgreSQL"

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        return _bounce(sandbox, "postgres", lambda server: server.kill(), chance.uniform(0.0, 4.0))


class TerminateConnections:
    name = "PostgreSQL: all connections terminated"

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        rounds = [chance.uniform(0.1, 1.0) for _ in range(chance.randint(1, 4))]
        ended = 0
        with _as_superuser(sandbox) as cursor:
            for pause in rounds:
                cursor.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND datname <> 'postgres'"
                )
                ended += cursor.fetchone()[0]
                time.sleep(pause)
        return f"{ended} connections terminated in {len(rounds)} rounds"


class KillRedis:
    name = "kill -9 of Redis"

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        return _bounce(sandbox, "redis", lambda server: server.kill(), chance.uniform(0.2, 8.0))


class FlushRedis:
    name = "Redis: FLUSHALL"

    def inject(self, sandbox: Sandbox, chance: random.Random) -> str:
        strokes = chance.randint(1, 5)
        client = redis.Redis.from_url(sandbox.servers.redis.url, socket_timeout=3)
        try:
            for _ in range(strokes):
                client.flushall()
                time.sleep(chance.uniform(0.05, 0.3))
        except redis.RedisError as error:
            raise FaultNotInjected(f"Redis was down ({error})") from error
        finally:
            client.close()
        return f"FLUSHALL, {strokes} times"


@contextlib.contextmanager
def stopped(targets: list[Instance]):
    """Send SIGSTOP to those that run, and after the block SIGCONT to the same processes."""
    pids = {one: pid for one in targets if (pid := one.signal(signal.SIGSTOP))}
    try:
        yield pids
    finally:
        for one, pid in pids.items():
            if one.pid == pid:  # otherwise it was killed, and its pid may belong to another process
                signal_process(pid, signal.SIGCONT)


def expire_deadlines(sandbox: Sandbox) -> int:
    """Set the deadline of every open order to now, except of locked ones; returns their number."""
    with _as_superuser(sandbox, "orders") as cursor:
        cursor.execute(EXPIRE_DEADLINES)
        return cursor.rowcount


@contextlib.contextmanager
def _as_superuser(sandbox: Sandbox, database: str = "postgres"):
    try:
        with sandbox.superuser(database) as connection, connection.cursor() as cursor:
            yield cursor
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        raise FaultNotInjected(f"PostgreSQL was down, or went down: {error}") from error


def _quit(server) -> None:
    """SIGQUIT, PostgreSQL's immediate shutdown: it recovers at the next start, as after a crash."""
    signal_process(server.pid, signal.SIGQUIT)
    if not wait_until(lambda: server.pid is None, seconds=10):
        server.kill()


def _bounce(sandbox: Sandbox, name: str, end, seconds: float) -> str:
    """Stop a server with `end`, and start it again after some seconds."""
    server = getattr(sandbox.servers, name)
    with sandbox.exclusively(name):
        if server.pid is None:
            raise FaultNotInjected(f"{name} was down")
        try:
            end(server)
            time.sleep(seconds)
        finally:
            began = time.monotonic()
            server.start()
    return f"{name} down for {seconds:.1f} s, back {time.monotonic() - began:.1f} s after its start"


FAULTS: list[Fault] = [
    *(KillService(service) for service in PROCESSES),
    *(KillAtExpiry(point) if point is TIMER_BEFORE_COMMIT else KillAtPoint(point) for point in POINTS),
    DeadlinesFallDue(),
    StopService("SIGSTOP for a moment", 0.5, 10.0),
    # RabbitMQ closes a silent connection after two heartbeats of 10 s, PostgreSQL ends an idle transaction after 30 s
    StopService("SIGSTOP for longer than the heartbeats", 42.0, 46.0),
    RestartBroker(),
    KillBroker(),
    StopPostgresAtOnce(),
    KillPostgres(),
    TerminateConnections(),
    KillRedis(),
    FlushRedis(),
]
