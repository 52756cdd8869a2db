"""Starts unmodified Nameko (unmodified_nameko_services.py), and measures it over HTTP."""

import http.client
import json
import subprocess
import sys
import uuid
from pathlib import Path

from deploy.local.process import wait_until
from deploy.local.suite import ROOT
from qa.bench.bench_servers import QUIET, end
from qa.bench.orders import connected, generate, order_requests, requests_per_second
from qa.support.free_ports import free_address

START_SECONDS = 20.0
STARTS = 3
SERVICES = ("Orders", "Notifications", "Gateway")
CONFIG = "qa/bench/unmodified_nameko.yml"
NAMEKO = str(Path(sys.executable).with_name("nameko"))
PRODUCTS = 10


class UnmodifiedNameko:
    """The processes of unmodified Nameko: `with UnmodifiedNameko(bench_servers) as nameko: ...`."""

    def __init__(self, bench_servers):
        self._bench_servers = bench_servers
        self._log = bench_servers.folder / "log/unmodified_nameko.log"
        self.address = free_address()
        self._urls = bench_servers.databases_for("unmodified", ("orders", "notifications"))
        self._environment = {
            "NAMEKO_ADDRESS": self.address,
            "NAMEKO_ORDERS_URL": self._urls["orders"],
            "NAMEKO_NOTIFICATIONS_URL": self._urls["notifications"],
        }
        self._processes = []

    def __enter__(self):
        self._make_tables()
        # The gateway hangs if it calls before the service's queue exists. In this case restart all processes.
        for _ in range(STARTS):
            self._start()
            if wait_until(self._is_ready, seconds=START_SECONDS, poll=0.2):
                return self
            end(self._processes)
        raise RuntimeError(f"unmodified Nameko does not respond: see {self._log}")

    def _start(self):
        self._processes = []
        for name in SERVICES:
            command = (NAMEKO, "run", "--config", CONFIG, f"qa.bench.unmodified_nameko_services:{name}")
            self._processes.append(self._bench_servers.spawn(*command, log=self._log, environment=self._environment))

    def __exit__(self, *_error):
        end(self._processes)

    def accepted_per_second(self, seconds, clients):
        """The rate of orders stored and published. No saga follows."""
        products = [str(uuid.uuid4()) for _ in range(PRODUCTS)]
        return generate(self.address, order_requests(products), seconds, clients=clients).accepted_per_second

    def constant_per_second(self, seconds, clients):
        """The rate of an HTTP entrypoint that returns a constant: the maximum of Nameko's server."""
        return requests_per_second(self.address, ["/constant"], seconds, clients)

    def reads_per_second(self, seconds, clients):
        """The rate of GETs of an order, each with one RPC."""
        with connected(self._urls["orders"]) as orders:
            orders.execute("SELECT id::text FROM unmodified_orders LIMIT 100")
            paths = [f"/orders/{row[0]}" for row in orders.fetchall()]
        return requests_per_second(self.address, paths, seconds, clients)

    def _make_tables(self):
        """Create the tables of unmodified Nameko, in separate databases."""
        code = (
            "import sys, sqlalchemy; from qa.bench.unmodified_nameko_services import Base; "
            "[Base.metadata.create_all(sqlalchemy.create_engine(url)) for url in sys.argv[1:]]"
        )
        command = [sys.executable, "-c", code, *self._urls.values()]
        subprocess.run(command, env=QUIET, cwd=ROOT, check=True, timeout=60)

    def _is_ready(self):
        """Whether an order can be placed, through the HTTP server and the service."""
        connection = http.client.HTTPConnection(self.address, timeout=5)
        body = json.dumps({"items": [{"product_id": str(uuid.uuid4()), "quantity": 1}]})
        try:
            connection.request("POST", "/orders", body)
            return connection.getresponse().status == http.HTTPStatus.CREATED
        except OSError:
            return False
        finally:
            connection.close()
