"""The floor, a lower bound: an order's durable writes and messages with psycopg2 and py-amqp, without a framework.

Per order it makes the 6 publishes and 10 deliveries of the contract, in batches, with outbox, inbox, publisher
confirms, quorum queues, the suite's tables, and a process for each role. It has no validation, no failures and no
compensation, so no suite that keeps the contract can cost less on the same machine. It runs without HTTP (`run`), and
behind a minimal HTTP server (`run_behind_http`), which is comparable with measurements over HTTP.
"""

import contextlib
import json
import subprocess
import time

from contracts.ids import new_id
from qa.bench.bench_servers import dsn, end
from qa.bench.floor_bus import connect, declare
from qa.bench.floor_roles import HANDLERS, check
from qa.bench.orders import Loaded, await_settled, connected, generate, order_requests
from qa.bench.process_usage import Meter
from qa.support.free_ports import free_address

STOCK = 100_000_000
PRODUCTS = 10


class Floor:
    """The floor's databases and products; each run starts its own processes."""

    def __init__(self, bench_servers):
        self._bench_servers = bench_servers
        self._urls = bench_servers.databases_for("floor", HANDLERS)
        self._log = bench_servers.folder / "log/floor.log"
        self._products = [str(new_id()) for _ in range(PRODUCTS)]
        with connected(self._urls["inventory"]) as inventory:
            for number, product in enumerate(self._products):
                inventory.execute("INSERT INTO stock VALUES (%s, %s, %s, 0)", (product, f"FLOOR-{number}", STOCK))

    def run(self, seconds):
        """Create orders for `seconds`; returns (Loaded, processor time by process)."""
        began = time.time()

        def made_by(intake):
            result = json.loads(intake.communicate(timeout=seconds + 60)[0])
            return Loaded(result["began"], result["ended"], result["cpu_seconds"], accepted=self._made_since(began))

        return self._run(seconds, made_by)

    def run_behind_http(self, seconds, clients):
        """As `run`, but with HTTP clients in closed loops."""
        address = free_address()

        def load(_intake):
            return generate(address, order_requests(self._products), seconds, clients=clients)

        return self._run(seconds, load, {"FLOOR_ADDRESS": address})

    def _run(self, seconds, load, environment=None):
        with contextlib.closing(connect(self._bench_servers.amqp_uri)) as connection:
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
            without_http = environment is None  # then the intake creates the load, and ends with it
            pids = {name: process.pid for name, process in processes.items() if not (without_http and name == "intake")}
            servers = self._bench_servers.servers
            since = time.time()
            with Meter(pids | {"rabbitmq": servers.rabbitmq.pid, "postgres": servers.postgres.pid}) as meter:
                loaded = load(intake)
                await_settled(loaded, self._urls, since)
        finally:
            end(processes.values())
        self._require_consistent(loaded)
        maker = "intake" if without_http else "load generator"
        return loaded, meter.per_order(len(loaded.settled), **{maker: loaded.cpu_seconds})

    def _spawn(self, service, *command, **environment):
        process = self._bench_servers.spawn(
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

    def _require_consistent(self, loaded):
        with contextlib.ExitStack() as stack:
            wrong = check({one: stack.enter_context(connected(url)) for one, url in self._urls.items()})
        if wrong or loaded.lost or not loaded.settled:
            raise RuntimeError(f"the floor is inconsistent: {wrong}, {loaded.lost} orders not settled")
