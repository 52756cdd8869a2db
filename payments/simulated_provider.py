"""The simulated payment provider as an HTTP server of its own: python -m payments.simulated_provider --port 8900.

It speaks the protocol of payments/http_provider.py, follows the scripts of payments/script.py, and refuses calls that
contradict earlier ones. What it has done is in its memory only.
"""

import argparse
import json
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from payments.http_provider import KINDS
from payments.provider import (
    Call,
    Declined,
    Operation,
    Outcome,
    OutcomeUnknown,
    ProviderRefuses,
    ProviderUnavailable,
    SimulatedProvider,
)

MAX_BODY_BYTES = 16_384
MAX_CALLS = 256
"""Calls at a time, those that hang included; further ones are refused with 503."""
MAX_CONNECTIONS = 2 * MAX_CALLS
"""Connections at a time, each with a thread; further ones get 503 and are closed."""
MAX_PAYMENTS = 100_000
SOCKET_SECONDS = 10.0
BUSY = (
    b"HTTP/1.0 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b'Content-Length: 33\r\n\r\n{"error": "too many connections"}'
)
NAMES = {kind: name for name, kind in KINDS.items()}


@dataclass(slots=True)
class Account:
    """What the provider did about one authorisation."""

    done: frozenset[str] = frozenset()
    captured: Decimal = Decimal(0)
    refunds: dict[str, Decimal] = field(default_factory=dict)
    """The amounts of the refunds, by their keys."""


class MemoryLedger:
    """What the provider did about the latest MAX_PAYMENTS authorisations."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._lock = threading.Lock()

    def authorise(self, call: Call, _reference: str) -> None:
        """Note an authorisation. Raises ProviderRefuses if it was voided before."""
        self._note(call, unless={Operation.VOID})

    def move(self, operation: Operation, call: Call, _reference: str) -> None:
        """Note a capture, void or refund. Raises ProviderRefuses."""
        if operation is Operation.VOID:
            self._note(call, unless={Operation.CAPTURE})
        elif operation is Operation.CAPTURE:
            self._note(call, unless={Operation.VOID}, after=Operation.AUTHORISE)
        else:
            self._note(call, unless={Operation.VOID}, after=Operation.CAPTURE)

    def done(self, authorisation: str) -> set[str]:
        """Return the operations that were done about an authorisation."""
        with self._lock:
            return set(self._accounts.get(authorisation, Account()).done)

    def refunded(self, authorisation: str) -> list[Decimal]:
        """Return the amounts of the refunds of an authorisation, in the order in which they were made."""
        with self._lock:
            return list(self._accounts.get(authorisation, Account()).refunds.values())

    def _note(self, call: Call, unless: set[Operation], after: Operation | None = None) -> None:
        with self._lock:
            account = self._accounts.get(call.authorisation, Account())
            if account.done & unless or (after is not None and after not in account.done):
                raise ProviderRefuses(f"{call.operation} after {', '.join(sorted(account.done)) or 'nothing'}")
            if call.operation is Operation.CAPTURE:
                account.captured = call.amount
            elif call.operation is Operation.REFUND:
                account.refunds = _with_refund(account, call)
            account.done |= {call.operation}
            self._accounts[call.authorisation] = account
            self._accounts.move_to_end(call.authorisation)
            if len(self._accounts) > MAX_PAYMENTS:
                self._accounts.popitem(last=False)


def _with_refund(account: Account, call: Call) -> dict[str, Decimal]:
    """Return the refunds with this one; a repeated call adds nothing. Raises ProviderRefuses."""
    refunds = account.refunds | {call.key: call.amount}
    if refunds[call.key] != account.refunds.get(call.key, call.amount):
        raise ProviderRefuses(f"a refund of {account.refunds[call.key]} has this key, not one of {call.amount}")
    if sum(refunds.values()) > account.captured:
        raise ProviderRefuses(f"the refunds would be more than the {account.captured} that were captured")
    return refunds


class Server(ThreadingHTTPServer):
    """Serves the provider; one thread for each connection, at most MAX_CONNECTIONS, and at most MAX_CALLS calls."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], limit: Decimal) -> None:
        super().__init__(address, Handler)
        self.ledger = MemoryLedger()
        self.provider = SimulatedProvider(limit, self.ledger)
        self.places = threading.BoundedSemaphore(MAX_CALLS)
        self.connections = threading.BoundedSemaphore(MAX_CONNECTIONS)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread. Where there are too many, refuse it; the acceptor waits for no client."""
        if not self.connections.acquire(blocking=False):
            with suppress(OSError):
                request.setblocking(False)
                request.send(BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    timeout = SOCKET_SECONDS

    def do_POST(self) -> None:
        """Make the call, and send its outcome, as often as the script says."""
        if not self.server.places.acquire(blocking=False):
            self._respond(503, {"error": "too many calls"})
            return
        try:
            outcomes = self.server.provider.ask(self._read_call())
        except OutcomeUnknown:
            return  # the connection is closed without a response
        except ProviderUnavailable as error:
            self._respond(503, {"error": str(error)})
        except ProviderRefuses as error:
            self._respond(409, {"error": str(error)})
        except (ValueError, KeyError, TypeError, InvalidOperation) as error:
            self._respond(400, {"error": f"{type(error).__name__}: {error}"})
        else:
            for outcome in outcomes:
                self._respond(200, _stated(outcome))
        finally:
            self.server.places.release()

    def log_message(self, *_arguments: Any) -> None:
        """Log nothing."""

    def _read_call(self) -> Call:
        length = int(self.headers["Content-Length"])
        if not 0 <= length <= MAX_BODY_BYTES:
            raise ValueError("the body is too large")
        body = json.loads(self.rfile.read(length))
        return Call(
            operation=Operation(self.path.strip("/")),
            key=str(self.headers["Idempotency-Key"]),
            authorisation=str(body["authorisation"]),
            amount=Decimal(body["amount"]),
            currency=str(body["currency"]),
            method=str(body["payment_method"]),
            reference=body["reference"],
        )

    def _respond(self, status: int, body: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.close_connection = True
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # nobody waits for the response any more


def _stated(outcome: Outcome) -> dict[str, str]:
    if isinstance(outcome, Declined):
        return {"outcome": "declined", "reason": outcome.reason}
    return {"outcome": NAMES[type(outcome)], "reference": outcome.reference}


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(prog="python -m payments.simulated_provider", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8900)
    parser.add_argument("--limit", type=Decimal, default=Decimal(os.environ.get("PAYMENT_LIMIT", "10000.00")))
    arguments = parser.parse_args()
    with Server((arguments.host, arguments.port), arguments.limit) as server:
        print(f"the simulated payment provider listens on {server.url}", flush=True)  # noqa: T201
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
