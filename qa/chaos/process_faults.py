"""Faults of processes: killed at random and at named points, stopped and continued, servers restarted under load."""

import contextlib
import random
import signal
import time

import psycopg2
import redis

from deploy.local.process import signal_process, wait_until
from deploy.local.suite import SERVICES
from qa.chaos.arena import Arena, Instance
from qa.chaos.faults import Fault, NotStruck
from qa.chaos.points import POINTS, TIMER_BEFORE_COMMIT, Point, Trap

REACHED_WITHIN = 12.0  # seconds for a service to get to an armed point
DIES_WITHIN = 5.0
# Without waiting for anybody's lock: in another order than the services' it could deadlock with them, and where a clock
# has just been set back by a day, PostgreSQL looks for deadlocks, and at its time-outs, no sooner than in a day.
FALL_DUE = """
    UPDATE orders SET deadline_at = clock_timestamp() - interval '1 second'
    WHERE id IN (SELECT id FROM orders WHERE status = 'CREATED' FOR UPDATE SKIP LOCKED)
"""


class KillService:
    """SIGKILL at a random moment: of one process, or of both where there are two."""

    def __init__(self, service: str) -> None:
        self.name = f"kill -9 of {service}"
        self._service = service

    def strike(self, arena: Arena, chance: random.Random) -> str:
        targets = [one for one in arena.instances if one.service == self._service]
        if chance.random() < 0.7:
            targets = [chance.choice(targets)]
        dead = {one: pid for one in targets if (pid := one.signal(signal.SIGKILL))}
        if not dead:
            raise NotStruck(f"{self._service} was down")
        for one, pid in dead.items():
            one.await_restart(pid)
        return f"SIGKILL of {' and '.join(one.name for one in dead)}"


class KillAtPoint:
    """SIGKILL exactly at a named point, by the service's own hand (see crashable.py)."""

    def __init__(self, point: Point) -> None:
        self.name = f"kill -9: {point.words}"
        self.point = point

    def strike(self, arena: Arena, chance: random.Random) -> str:
        service = chance.choice(self.point.services)
        with arena.exclusively(f"{service}.{self.point.name}"):
            before = {one: one.pid for one in arena.instances if one.service == service}
            trap = Trap(arena.folder, service, self.point)
            trap.arm()
            try:
                self._await_hit(arena, trap)
            finally:
                trap.disarm()
            wait_until(lambda: any(one.pid != pid for one, pid in before.items()), seconds=DIES_WITHIN)
            for one in before:
                one.await_restart(0)
        return f"{service} killed: {self.point.words}"

    def _await_hit(self, arena: Arena, trap: Trap) -> None:
        if not wait_until(trap.hit.exists, seconds=REACHED_WITHIN):
            raise NotStruck(f"{trap.armed.name} was not reached within {REACHED_WITHIN:.0f} s")


class KillAtExpiry(KillAtPoint):
    """The timer has something to cancel when payments stands still and the deadlines of open orders fall due."""

    def _await_hit(self, arena: Arena, trap: Trap) -> None:
        with stopped([one for one in arena.instances if one.service == "payments"]):
            end = time.monotonic() + REACHED_WITHIN
            while not trap.hit.exists():
                fall_due(arena)
                wait_until(trap.hit.exists, seconds=0.5)
                if time.monotonic() > end:
                    raise NotStruck(f"{trap.armed.name} was not reached within {REACHED_WITHIN:.0f} s")


class DeadlinesFallDue:
    """The deadlines of all open orders are now: time-out, answers and cancels race."""

    name = "deadlines of open orders fall due"

    def strike(self, arena: Arena, chance: random.Random) -> str:
        count = 0
        for _ in range(chance.randint(3, 10)):
            count += fall_due(arena)
            time.sleep(chance.uniform(0.1, 0.5))
        if not count:
            raise NotStruck("no order was open")
        return f"{count} deadlines set to now"


class StopService:
    """SIGSTOP, later SIGCONT: the process comes back in the belief that no time has passed."""

    def __init__(self, name: str, shortest: float, longest: float) -> None:
        self.name = name
        self._shortest, self._longest = shortest, longest
        self.long = longest > 25

    def strike(self, arena: Arena, chance: random.Random) -> str:
        target = chance.choice(arena.instances)
        seconds = chance.uniform(self._shortest, self._longest)
        with stopped([target]) as pids:
            if not pids:
                raise NotStruck(f"{target.name} was down")
            time.sleep(seconds)
        return f"SIGSTOP of {target.name} for {seconds:.1f} s"


class RestartBroker:
    name = "RabbitMQ restarted gracefully"

    def strike(self, arena: Arena, chance: random.Random) -> str:
        return _bounce(arena, "rabbitmq", lambda server: server.stop(), chance.uniform(0.0, 3.0))


class KillBroker:
    name = "kill -9 of RabbitMQ"

    def strike(self, arena: Arena, chance: random.Random) -> str:
        return _bounce(arena, "rabbitmq", lambda server: server.kill(), chance.uniform(0.0, 3.0))


class StopPostgresAtOnce:
    name = "PostgreSQL: immediate stop"

    def strike(self, arena: Arena, chance: random.Random) -> str:
        return _bounce(arena, "postgres", _quit, chance.uniform(0.0, 4.0))


class KillPostgres:
    name = "kill -9 of PostgreSQL"

    def strike(self, arena: Arena, chance: random.Random) -> str:
        return _bounce(arena, "postgres", lambda server: server.kill(), chance.uniform(0.0, 4.0))


class TerminateConnections:
    name = "PostgreSQL: all connections terminated"

    def strike(self, arena: Arena, chance: random.Random) -> str:
        rounds = [chance.uniform(0.1, 1.0) for _ in range(chance.randint(1, 4))]
        ended = 0
        with _as_superuser(arena) as cursor:
            for pause in rounds:
                cursor.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND datname <> 'postgres'"
                )
                ended += cursor.fetchone()[0]
                time.sleep(pause)
        return f"{ended} connections terminated in {len(rounds)} strokes"


class KillRedis:
    name = "kill -9 of Redis"

    def strike(self, arena: Arena, chance: random.Random) -> str:
        return _bounce(arena, "redis", lambda server: server.kill(), chance.uniform(0.2, 8.0))


class FlushRedis:
    name = "Redis: FLUSHALL"

    def strike(self, arena: Arena, chance: random.Random) -> str:
        strokes = chance.randint(1, 5)
        client = redis.Redis(port=arena.servers.redis.port, socket_timeout=3)
        try:
            for _ in range(strokes):
                client.flushall()
                time.sleep(chance.uniform(0.05, 0.3))
        except redis.RedisError as error:
            raise NotStruck(f"Redis was down ({error})") from error
        finally:
            client.close()
        return f"FLUSHALL, {strokes} times"


@contextlib.contextmanager
def stopped(targets: list[Instance]):
    """SIGSTOP those that run; SIGCONT after the block to the very same processes."""
    pids = {one: pid for one in targets if (pid := one.signal(signal.SIGSTOP))}
    try:
        yield pids
    finally:
        for one, pid in pids.items():
            if one.pid == pid:  # else it was killed meanwhile, and the pid may be somebody else's
                signal_process(pid, signal.SIGCONT)


def fall_due(arena: Arena) -> int:
    """Let the deadline of every order that is still open be now; how many there were that nobody had locked."""
    with _as_superuser(arena, "orders") as cursor:
        cursor.execute(FALL_DUE)
        return cursor.rowcount


@contextlib.contextmanager
def _as_superuser(arena: Arena, database: str = "postgres"):
    try:
        connection = arena.superuser(database)
    except psycopg2.OperationalError as error:
        raise NotStruck("PostgreSQL was down") from error
    try:
        with connection.cursor() as cursor:
            yield cursor
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        raise NotStruck("PostgreSQL went down") from error
    finally:
        connection.close()


def _quit(server) -> None:
    """SIGQUIT: PostgreSQL's immediate mode, after which it recovers as from a crash."""
    signal_process(server.pid, signal.SIGQUIT)
    if not wait_until(lambda: server.pid is None, seconds=10):
        server.kill()


def _bounce(arena: Arena, name: str, end, seconds: float) -> str:
    """End a server, leave it down for a while, start it again."""
    server = getattr(arena.servers, name)
    with arena.exclusively(name):
        if server.pid is None:
            raise NotStruck(f"{name} was down")
        try:
            end(server)
            time.sleep(seconds)
        finally:
            began = time.monotonic()
            server.start()
    return f"{name} down for {seconds:.1f} s, back {time.monotonic() - began:.1f} s after its start"


FAULTS: list[Fault] = [
    *(KillService(service) for service in SERVICES),
    *(KillAtExpiry(point) if point is TIMER_BEFORE_COMMIT else KillAtPoint(point) for point in POINTS),
    DeadlinesFallDue(),
    StopService("SIGSTOP for a moment", 0.5, 10.0),
    # the broker gives a silent peer up after two heartbeats of 10 s, PostgreSQL an idle transaction after 30 s
    StopService("SIGSTOP for longer than the heartbeats", 42.0, 46.0),
    RestartBroker(),
    KillBroker(),
    StopPostgresAtOnce(),
    KillPostgres(),
    TerminateConnections(),
    KillRedis(),
    FlushRedis(),
]
