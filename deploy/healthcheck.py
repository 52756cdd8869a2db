"""Checks whether a service lives: `python -m deploy.healthcheck orders` exits with 0, or with 1 and a reason.

A service lives if it has started and none of its loops is stuck. What it needs may be away or slow (`degraded`): a
restart would not help. The process on this machine is asked by HTTP, `GET /health/live` of the port for its metrics, so
that the check needs no broker. A service without that port is asked by RPC, where another process of it may reply. The
gateway is asked at its own port.

Who waits for everything at a start uses `is_healthy`, and `parts_down` of the gateway's `GET /health/ready`. The reply
queue of a call ends with the connection, so repeated checks leave no queues behind.
"""

import http.client
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import kombu
from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

CONFIG = "config.yml"
TIMEOUT = 3.0  # seconds
RPC_EXCHANGE = "nameko-rpc"
OPTIONAL = "redis"  # the part of a service without which it is only slower


class Unhealthy(Exception):
    """The service returned an error, or reported a failed part; the text says which."""


def ask(
    amqp_uri: str,
    service: str,
    method: str = "health",
    arguments: dict[str, Any] | None = None,
    *,
    timeout: float = TIMEOUT,
) -> dict[str, Any]:
    """Call a service's method and return its result. TimeoutError after `timeout` seconds, Unhealthy for an error."""
    deadline = time.monotonic() + timeout
    replies: list[Any] = []
    with kombu.Connection(amqp_uri, connect_timeout=min(timeout, TIMEOUT)) as connection:
        channel = connection.channel()
        address = str(uuid.uuid4())
        name = f"rpc.reply-{service}-{address}"  # every service has the permission to declare such a queue
        channel.queue_declare(name, durable=False, exclusive=True, auto_delete=True)
        channel.queue_bind(name, RPC_EXCHANGE, address)
        queue = kombu.Queue(name, no_declare=True, channel=channel)
        with kombu.Consumer(
            channel,
            [queue],
            no_ack=True,
            accept=["json"],
            callbacks=[lambda body, _message: replies.append(body)],
        ):
            kombu.Producer(channel).publish(
                json.dumps({"args": [], "kwargs": arguments or {}}),
                exchange=RPC_EXCHANGE,
                routing_key=f"{service}.{method}",
                content_type="application/json",
                content_encoding="utf-8",
                reply_to=address,
                correlation_id=str(uuid.uuid4()),
                expiration=timeout,
            )
            while not replies:
                connection.drain_events(timeout=max(deadline - time.monotonic(), 0.001))
    reply = replies[0]
    if reply.get("error"):
        raise Unhealthy(f"{service} returned an error: {reply['error'].get('value') or reply['error'].get('exc_type')}")
    return dict(reply.get("result") or {})


def check(amqp_uri: str, service: str, *, timeout: float = TIMEOUT) -> str:
    """Return what is wrong with the service, "" for nothing. Raises as `ask` does, and Unhealthy if it is failing."""
    health = ask(amqp_uri, service, timeout=timeout)
    problems = "; ".join(f"{part}: {state}" for part, state in health["parts"].items() if state != "ok")
    if health["status"] == "failing":
        raise Unhealthy(problems)
    return "" if health["status"] == "ok" else problems


def is_healthy(amqp_uri: str, service: str, *, timeout: float = TIMEOUT) -> bool:
    """Whether the service responds, and nothing is wrong with it."""
    try:
        return not check(amqp_uri, service, timeout=timeout)
    except (Unhealthy, OSError, OperationalError, AMQPError):
        return False


def lives(address: str, service: str, *, timeout: float = TIMEOUT) -> bool:
    """Whether the process that serves its metrics on this host:port lives; False if none of this service does.

    Raises Unhealthy if the process reports that it has not started, or that loops are stuck.
    """
    port = address.rpartition(":")[2]
    if not port.isdigit():  # none, or a range of ports: it is not known which of them
        return False
    try:
        status, body = _get(address, "/health/live", timeout)
        report = json.loads(body)
    except (ConnectionRefusedError, http.client.HTTPException, ValueError):
        return False
    if not isinstance(report, dict) or report.get("service") != service:
        return False
    if status != http.HTTPStatus.OK:
        raise Unhealthy(f"{service} is {report['status']}; stuck: {', '.join(report['stuck']) or 'nothing'}")
    return True


def ask_gateway(address: str, *, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Return the report of `GET /health/ready` on this host:port. Raises Unhealthy unless the status is 200."""
    return _ask_gateway(address, "/health/ready", timeout)


def _ask_gateway(address: str, path: str, timeout: float) -> dict[str, Any]:
    status, body = _get(address, path, timeout)
    if status != http.HTTPStatus.OK:
        raise Unhealthy(f"the gateway returned {status}: {body[:500].decode(errors='replace')}")
    return dict(json.loads(body))


def _get(address: str, path: str, timeout: float) -> tuple[int, bytes]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(
        "127.0.0.1" if host in ("", "0.0.0.0") else host, int(port), timeout=timeout
    )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def parts_down(report: dict[str, Any]) -> list[str]:
    """Return the parts that a report of the gateway names as down, such as `orders.database`, without the optional."""
    return [
        service if part == "service" else f"{service}.{part}"
        for service, parts in report["services"].items()
        for part, state in parts.items()
        if state != "ok" and part != OPTIONAL
    ]


def main(names: list[str]) -> int:
    """Check each named service; returns the exit code."""
    if not names:
        print("which service? for example: python -m deploy.healthcheck orders", file=sys.stderr)
        return 2
    from deploy.config_file import load
    from extensions.runtime.addresses import amqp_uri, metrics_address

    settings = load(Path(CONFIG))
    for name in names:
        try:
            if name == "gateway":
                _ask_gateway(settings["WEB_SERVER_ADDRESS"], "/health/live", TIMEOUT)
            elif not lives(metrics_address(settings, name), name):
                check(amqp_uri(settings, name), name)
        except TimeoutError:
            print(f"{name} did not respond within {TIMEOUT:g} s", file=sys.stderr)
            return 1
        except (Unhealthy, OSError, OperationalError, AMQPError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    # one call needs no eventlet hub, and starting without it is faster
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main(sys.argv[1:]))
