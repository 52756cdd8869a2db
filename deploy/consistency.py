"""Checks every invariant of a running suite: `make check-consistency`, or `python -m deploy.consistency`.

It waits until nothing is in flight, and prints each invariant with the number of violations and their ids.
Exit code 0: all invariants hold. 1: an invariant is violated, or something stayed in flight. 2: the check failed.
`make` exits with 2 instead of 1. A script that needs the difference calls `python -m deploy.consistency`, after
`. var/env`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

from contracts.services import SERVICES
from deploy.config_file import load
from deploy.healthcheck import Unhealthy, ask
from deploy.require_running import NotRunning

PAUSE_SECONDS = 2.0
LOOK_SECONDS = 300.0
CANNOT_TELL = (Unhealthy, OSError, OperationalError, AMQPError)

Look = Callable[[], dict[str, Any]]


def await_rest(look: Look, timeout: float, pause: float = PAUSE_SECONDS) -> dict[str, Any]:
    """Repeat the check until the suite is at rest and all invariants hold, for at most `timeout` seconds.

    Violations are final if two successive checks at rest find the same ones. One check is not enough, because the
    broker does not count messages that a consumer is handling.
    """
    deadline = time.monotonic() + timeout
    before = None
    while True:
        seen = look()
        if seen["at_rest"] and (not broken(seen) or seen == before):
            return seen
        if time.monotonic() + pause > deadline:
            return seen
        before = seen
        time.sleep(pause)


def broken(seen: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the checks with violations."""
    return [check for check in seen["checks"] if check["count"]]


def report(seen: dict[str, Any]) -> Iterable[str]:
    """Yield the lines for a person, columns: result, number of violations, invariant."""
    yield f"  {'result':<7}{'violations':>11}  invariant"
    for check in seen["checks"]:
        yield f"  {'BROKEN' if check['count'] else 'ok':<7}{check['count']:>11}  {check['name']}"
        yield from (f"{'':>22}{each}" for each in check["ids"])
        if check["count"] > len(check["ids"]):
            yield f"{'':>22}and {check['count'] - len(check['ids'])} more"
    yield "at rest" if seen["at_rest"] else f"not at rest: {seen['in_flight']} in flight"


def require_all(amqp_uri: str) -> None:
    """Raise Unhealthy if a service does not respond: the comparison would wait for its whole time limit."""
    for service in SERVICES:
        try:
            ask(amqp_uri, service)
        except TimeoutError:
            raise Unhealthy(f"{service} does not respond: is it running?") from None


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.consistency", description=__doc__)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for the suite to come to rest")
    parser.add_argument("--since", help="compare only orders made from this time on, such as 2026-01-31T08:30:00Z")
    options = parser.parse_args(arguments)
    amqp_uri = load()["AMQP_URI"]

    def look() -> dict[str, Any]:
        return ask(amqp_uri, "orders", "check_consistency", {"since": options.since}, timeout=LOOK_SECONDS)

    try:
        require_all(amqp_uri)
        seen = await_rest(look, options.timeout)
    except TimeoutError:
        print(f"the check did not end within {LOOK_SECONDS:g} s", file=sys.stderr)
        return 2
    except ConnectionRefusedError:
        print(NotRunning(amqp_uri), file=sys.stderr)
        return 2
    except CANNOT_TELL as error:
        print(f"the check failed: {error}", file=sys.stderr)
        return 2
    print("\n".join(report(seen)))
    return 0 if seen["at_rest"] and not broken(seen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
