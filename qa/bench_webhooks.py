"""How many webhooks a second one process of notifications delivers: `make bench-webhooks`.

It starts its own servers and one notifications process, and a receiver in another process on this machine. Then it
publishes events of users who have an endpoint each, and measures until every delivery was received and recorded. One
endpoint more, which receives every event too, hangs: it must not slow down the others. Exits with 1 below the goal.
"""

import argparse
import asyncio
import multiprocessing
import os
import sys
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import amqp
import psycopg2
from kombu.utils.url import parse_url

from contracts.events import EXCHANGE
from contracts.ids import new_id
from contracts.orders import OrderConfirmed
from deploy.local.suite import Suite
from extensions.runtime.addresses import database_variable
from notifications.signatures import new_secret
from qa.bench.bench_servers import dsn, running_servers

FOLDER = Path("var/bench-webhooks")
GOAL = 300
RESPONSE = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
PATIENCE_SECONDS = 300.0
NEW_WEBHOOK = "INSERT INTO webhooks (id, user_id, url, events, scope, secret) VALUES (%s, %s, %s, %s, %s, %s)"


def receive(ready, count):
    """Serve two ports until the process is ended: one responds at once, and one never does."""

    async def respond(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        writer.write(RESPONSE)
        await writer.drain()
        writer.close()
        with count.get_lock():
            count.value += 1

    async def hang(_reader, _writer):
        await asyncio.sleep(PATIENCE_SECONDS)

    async def serve():
        fast = await asyncio.start_server(respond, "127.0.0.1", 0, backlog=1024)
        slow = await asyncio.start_server(hang, "127.0.0.1", 0, backlog=1024)
        ready.send([server.sockets[0].getsockname()[1] for server in (fast, slow)])
        await asyncio.gather(fast.serve_forever(), slow.serve_forever())

    asyncio.run(serve())


def register(database, users, port, hanging_port):
    """Give each user an endpoint, and an administrator one that hangs."""
    with closing(psycopg2.connect(dsn(database))) as connection, connection, connection.cursor() as cursor:
        for user_id in users:
            url = f"http://127.0.0.1:{port}/{user_id}"
            cursor.execute(NEW_WEBHOOK, (str(new_id()), str(user_id), url, ["*"], "OWN", new_secret()))
        url = f"http://127.0.0.1:{hanging_port}/"
        cursor.execute(NEW_WEBHOOK, (str(new_id()), str(new_id()), url, ["*"], "SHOP", new_secret()))


def publish(uri, users, events):
    """Publish the events, of all users in turn."""
    address = parse_url(uri)
    with closing(
        amqp.Connection(
            host=f"{address['hostname']}:{address['port']}",
            userid=address["userid"],
            password=address["password"],
            virtual_host=address["virtual_host"] or "/",
        )
    ) as connection:
        connection.connect()
        channel = connection.channel()
        for number in range(events):
            event = OrderConfirmed(
                order_id=new_id(), user_id=users[number % len(users)], total_amount=Decimal("149.90"), currency="TRY"
            )
            properties = {"content_type": "application/json", "delivery_mode": 2, "message_id": str(new_id())}
            channel.basic_publish(amqp.Message(event.to_json(), **properties), EXCHANGE, event.event_type)


def recorded(database):
    """How many deliveries are recorded."""
    with closing(psycopg2.connect(dsn(database))) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM webhook_deliveries WHERE state = 'DELIVERED'")
        return cursor.fetchone()[0]


def processor_seconds(pid):
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(suite, servers, arguments, count, ports):
    """Return the number of deliveries a second, from the first publication to the last record."""
    database = servers.environment[database_variable("notifications")]
    users = [new_id() for _ in range(arguments.endpoints)]
    register(database, users, *ports)
    pid = suite.pid("notifications")
    used, began = processor_seconds(pid), time.monotonic()
    publish(servers.amqp_uri, users, arguments.events)
    published = time.monotonic() - began
    while count.value < arguments.events or recorded(database) < arguments.events:
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise SystemExit(f"only {count.value} of {arguments.events} deliveries arrived")
        time.sleep(0.1)
    seconds = time.monotonic() - began
    print(f"{arguments.events} deliveries to {arguments.endpoints} endpoints in {seconds:.1f} s")
    print(f"published within {published:.1f} s; received {count.value} times")
    print(f"processor time of notifications: {1000 * (processor_seconds(pid) - used) / arguments.events:.2f} ms each")
    return arguments.events / seconds


def main():
    parser = argparse.ArgumentParser(prog="python -m qa.bench_webhooks", description=__doc__)
    parser.add_argument("--events", type=int, default=6000)
    parser.add_argument("--endpoints", type=int, default=20)
    parser.add_argument("--goal", type=float, default=GOAL, help="deliveries a second")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    count = context.Value("i", 0)
    receiver = context.Process(target=receive, args=(theirs, count), daemon=True)
    receiver.start()
    ports = ours.recv()
    try:
        with running_servers(FOLDER) as servers:
            environment = servers.environment | {"OUTBOUND_ALLOW_LOOPBACK": "yes", "LOG_LEVEL": "WARNING"}
            suite = Suite(environment, log_dir=FOLDER / "log", services=["notifications"])
            suite.start()
            try:
                suite.wait_ready(120)
                rate = measure(suite, servers, arguments, count, ports)
            finally:
                suite.stop()
    finally:
        receiver.kill()
    print(f"{rate:.0f} deliveries a second (goal: {arguments.goal:.0f})")
    return 0 if rate >= arguments.goal else 1


if __name__ == "__main__":
    sys.exit(main())
