"""Starts the FastStream version (faststream_app.py) in its own virtual environment, and measures it over HTTP."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import time
import uuid

from deploy.local.process import wait_until
from qa.bench.bench_servers import dsn, end
from qa.bench.floor_bus import connect
from qa.bench.orders import connected, order_requests, place
from qa.bench.process_usage import Meter
from qa.support.free_ports import free_address

PYTHON = "var/bench-venv/bin/python"
CONSUMERS = ("inventory", "payments", "notifications")
DATABASES = ("orders", "catalog", *CONSUMERS)
APP = "qa.bench.faststream_app"
SECRET = b"a secret that only the benchmark uses"
START_SECONDS = 30.0
PRODUCTS = 10
STOCK = 100_000_000


class FastStreamSaga:
    """The processes of the FastStream version: `with FastStreamSaga(bench_servers) as saga: ...`."""

    def __init__(self, bench_servers):
        self._bench_servers = bench_servers
        self._log = bench_servers.folder / "log/faststream.log"
        self._urls = bench_servers.databases_for("faststream", DATABASES)
        self.address, self._catalog = free_address(), free_address()
        self._products = [str(uuid.uuid4()) for _ in range(PRODUCTS)]
        self._processes = {}

    def __enter__(self):
        self._make_products()
        self._processes["catalog"] = self._serve("catalog", self._catalog)
        for service in CONSUMERS:
            self._processes[service] = self._spawn(service, APP)
        self._processes["orders"] = self._serve("orders", self.address)
        if not wait_until(self._is_ready, seconds=START_SECONDS, poll=0.2):
            self.__exit__()
            raise RuntimeError(f"the FastStream version does not start: see {self._log}")
        return self

    def __exit__(self, *_error):
        end(self._processes.values())

    def place(self, seconds, clients):
        """Place orders; returns (Loaded, processor ms per order by process)."""
        servers = self._bench_servers.servers
        pids = {name: process.pid for name, process in self._processes.items()}
        requests = order_requests(self._products, {"Authorization": f"Bearer {_token()}"})
        with Meter(pids | {"rabbitmq": servers.rabbitmq.pid, "postgres": servers.postgres.pid}) as meter:
            loaded = place(self.address, requests, self._urls, seconds, clients=clients)
        if loaded.lost or not loaded.settled:
            raise RuntimeError(f"FastStream: {loaded.lost} of {len(loaded.accepted)} orders were not settled")
        return loaded, meter.per_order(len(loaded.settled), **{"load generator": loaded.cpu_seconds})

    def _serve(self, service, address):
        port = address.rpartition(":")[2]
        return self._spawn(
            service, "uvicorn", f"{APP}:{service}", "--port", port, "--log-level", "warning", "--no-access-log"
        )

    def _spawn(self, service, module, *command):
        environment = {
            "BENCH_SERVICE": service,
            "BENCH_DSN": dsn(self._urls[service]),
            "BENCH_AMQP": self._bench_servers.amqp_uri.replace("pyamqp://", "amqp://"),
            "BENCH_CATALOG": f"http://{self._catalog}",
        }
        return self._bench_servers.spawn("-m", module, *command, log=self._log, environment=environment, python=PYTHON)

    def _make_products(self):
        with connected(self._urls["catalog"]) as catalog, connected(self._urls["inventory"]) as inventory:
            for number, product in enumerate(self._products):
                sku = f"FASTSTREAM-{product[:8]}"
                catalog.execute(
                    "INSERT INTO products (id, sku, name, description, price, currency, is_active, version) "
                    "VALUES (%s, %s, 'Bench', '', %s, 'TRY', true, 1)",
                    (product, sku, f"{10 + number}.90"),
                )
                inventory.execute(
                    "INSERT INTO stock (product_id, product_sku, on_hand) VALUES (%s, %s, %s)", (product, sku, STOCK)
                )

    def _is_ready(self):
        """Whether both servers respond, and every queue has a consumer."""
        for address in (self.address, self._catalog):
            connection = http.client.HTTPConnection(address, timeout=2)
            with contextlib.closing(connection):
                try:
                    connection.request("GET", "/openapi.json")
                    connection.getresponse()
                except OSError:
                    return False
        try:
            with contextlib.closing(connect(self._bench_servers.amqp_uri)) as connection:
                channel = connection.channel()
                queues = [
                    f"faststream.{one}.{event}" for one in CONSUMERS for event in ("order.created", "order.confirmed")
                ]
                return all(channel.queue_declare(queue, passive=True).consumer_count for queue in queues)
        except OSError:
            return False
        except Exception:  # noqa: BLE001 - amqp raises NotFound for a queue that does not exist yet
            return False


def _token():
    """A token that is valid for an hour, signed with HS256, as in FastAPI's documentation."""
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": str(uuid.uuid4()), "exp": int(time.time()) + 3600}]
    signed = b".".join(_base64(json.dumps(part).encode()) for part in parts)
    return (signed + b"." + _base64(hmac.new(SECRET, signed, hashlib.sha256).digest())).decode()


def _base64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")
