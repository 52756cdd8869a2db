"""The floor: an order's durable writes and messages in raw psycopg2 and py-amqp, in batches, without any framework.

Per order 6 publishes and 10 deliveries as the contract has them, outbox, inbox, publisher confirms, quorum queues, the
suite's own tables, a process for each role. Nothing is validated, nothing can fail, nothing is compensated: no suite
that keeps the contract can be faster on the same machine. Without HTTP (`run`), and behind the thinnest HTTP front
there can be (`run_behind_http`), which is the fair comparison where clients are in the loop.
"""

import contextlib
import json
import subprocess
import time

from contracts.ids import new_id
from qa.bench.floor_bus import connect, declare
from qa.bench.floor_roles import HANDLERS, check
from qa.bench.ground import dsn, end, free_port
from qa.bench.orders import Loaded, await_settled, connected, generate, order_requests
from qa.bench.processes import Meter

STOCK = 100_000_000
PRODUCTS = 10


class Floor:
    """The floor's databases and products; each run has processes of its own."""

    def __init__(self, ground):
        self._ground = ground
        self._urls = ground.databases_for("floor", HANDLERS)
        self._log = ground.folder / "log/floor.log"
        self._products = [str(new_id()) for _ in range(PRODUCTS)]
        with connected(self._urls["inventory"]) as inventory:
            for number, product in enumerate(self._products):
                inventory.execute("INSERT INTO stock VALUES (%s, %s, %s, 0)", (product, f"FLOOR-{number}", STOCK))

    def run(self, seconds):
        """Make orders for `seconds`; returns (what was settled, processor time by process)."""
        began = time.time()

        def made_by(intake):
            told = json.loads(intake.communicate(timeout=seconds + 60)[0])
            return Loaded(told["began"], told["ended"], told["cpu_seconds"], accepted=self._made_since(began))

        return self._run(seconds, made_by)

    def run_behind_http(self, seconds, clients):
        """The same, with clients that ask for one order after the other."""
        address = f"127.0.0.1:{free_port()}"

        def load(_intake):
            return generate(address, order_requests(self._products), seconds, clients=clients)

        return self._run(seconds, load, {"FLOOR_ADDRESS": address})

    def _run(self, seconds, load, environment=None):
        with contextlib.closing(connect(self._ground.amqp_uri)) as connection:
            declare(connection.channel())
        processes = {}
        try:
            for role in HANDLERS:
                processes[role] = self._spawn(role, "qa.bench.floor_roles", role)
            intake = self._spawn(
                "orders",
                "qa.bench.floor_intake",
                str(seconds),
                FLOOR_PRODUCTS=json.dumps(self._products),
                **(environment or {}),
            )
            processes["intake"] = intake
            without_http = environment is None  # then the intake is what makes the load, and has ended when it is made
            pids = {name: process.pid for name, process in processes.items() if not (without_http and name == "intake")}
            servers = self._ground.servers
            since = time.time()
            with Meter(pids | {"rabbitmq": servers.rabbitmq.pid, "postgres": servers.postgres.pid}) as meter:
                loaded = load(intake)
                await_settled(loaded, self._urls, since)
        finally:
            end(processes.values())
        self._require_sound(loaded)
        maker = "intake" if without_http else "load generator"
        return loaded, meter.per_order(len(loaded.settled), **{maker: loaded.cpu_seconds})

    def _spawn(self, service, *command, **environment):
        process = self._ground.spawn(
            "-m",
            *command,
            log=self._log,
            environment={"FLOOR_DSN": dsn(self._urls[service]), **environment},
            stdout=subprocess.PIPE,
        )
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{' '.join(command)} did not start: see {self._log}")
        return process

    def _made_since(self, since):
        with connected(self._urls["orders"]) as orders:
            orders.execute(
                "SELECT id::text, extract(epoch FROM created_at)::float FROM orders "
                "WHERE created_at >= to_timestamp(%s)",
                (since,),
            )
            return dict(orders.fetchall())

    def _require_sound(self, loaded):
        with contextlib.ExitStack() as stack:
            wrong = check({one: stack.enter_context(connected(url)) for one, url in self._urls.items()})
        if wrong or loaded.lost or not loaded.settled:
            raise RuntimeError(f"the floor does not add up: {wrong}, {loaded.lost} orders not settled")
