"""Is a service well? `python -m deploy.healthcheck orders` exits 0 if it is, 1 with a reason if not.

A service is asked by RPC over the broker, which is how it is reached; the gateway by HTTP, `GET /health/ready`.
The answer comes in a queue that ends with the connection, so that a check every few seconds leaves none behind.
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


class Unhealthy(Exception):
    """The service said no, or nothing; the text says which."""


def ask(
    amqp_uri: str,
    service: str,
    method: str = "health",
    arguments: dict[str, Any] | None = None,
    *,
    timeout: float = TIMEOUT,
) -> dict[str, Any]:
    """The answer of a service's method. TimeoutError if there is none within `timeout` seconds, Unhealthy an error."""
    deadline = time.monotonic() + timeout
    replies: list[Any] = []
    with kombu.Connection(amqp_uri, connect_timeout=min(timeout, TIMEOUT)) as connection:
        channel = connection.channel()
        address = str(uuid.uuid4())
        name = f"rpc.reply-{service}-{address}"  # a service may ask itself: it may have such a queue
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
        raise Unhealthy(f"{service} answers: {reply['error'].get('value') or reply['error'].get('exc_type')}")
    return dict(reply.get("result") or {})


def check(amqp_uri: str, service: str, *, timeout: float = TIMEOUT) -> None:
    """Raise as `ask` does, and Unhealthy where the service says that it cannot work."""
    health = ask(amqp_uri, service, timeout=timeout)
    if health.get("status") != "ok":
        raise Unhealthy("; ".join(f"{part}: {state}" for part, state in health["parts"].items() if state != "ok"))


def answers(amqp_uri: str, service: str, *, timeout: float = TIMEOUT) -> bool:
    """Does the service answer, and well?"""
    try:
        check(amqp_uri, service, timeout=timeout)
    except (Unhealthy, OSError, OperationalError, AMQPError):
        return False
    return True


def ask_gateway(address: str, *, timeout: float = TIMEOUT) -> None:
    """Unhealthy unless `GET /health/ready` on this host:port is 200."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(
        "127.0.0.1" if host in ("", "0.0.0.0") else host, int(port), timeout=timeout
    )
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise Unhealthy(f"the gateway answers {answer.status}: {answer.read(500).decode(errors='replace')}")
    finally:
        connection.close()


def main(names: list[str]) -> int:
    """Check each named service; the exit code."""
    if not names:
        print("which service? for example: python -m deploy.healthcheck orders", file=sys.stderr)
        return 2
    from deploy.settings import load
    from extensions.runtime.addresses import amqp_uri

    settings = load(Path(CONFIG))
    for name in names:
        try:
            if name == "gateway":
                ask_gateway(settings["WEB_SERVER_ADDRESS"])
            else:
                check(amqp_uri(settings, name), name)
        except TimeoutError:
            print(f"{name} did not answer within {TIMEOUT:g} s", file=sys.stderr)
            return 1
        except (Unhealthy, OSError, OperationalError, AMQPError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    # a green hub is not needed for one question, and starting without it is faster
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main(sys.argv[1:]))
