"""The named points between write, commit, publish and ack at which a service is killed.

A fault arms a point by a file `armed/<service>.<point>` in the folder of the run. The process that reaches the point
renames the file into `hit/` and kills itself (see crashable.py). Only one process can rename the file, so only one
dies.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from contracts.events import EVENTS
from contracts.services import SERVICES

FOLDER = "CHAOS_FOLDER"  # the variable with the folder of the armed points
CRASHABLE = (sys.executable, "-m", "qa.chaos.crashable")

_CONSUMERS = {consumer for event in EVENTS.values() for consumer in event.consumers}
HANDLERS = tuple(service for service in SERVICES if service in _CONSUMERS)
RELAYS = ("orders", "inventory", "payments")


@dataclass(frozen=True)
class Point:
    """`words` describe the point; `services` are those that reach it under the load."""

    name: str
    words: str
    services: tuple[str, ...]


HANDLER_BEFORE_COMMIT = Point("handler-before-commit", "event handler after write, before commit", HANDLERS)
HANDLER_BEFORE_ACK = Point("handler-before-ack", "event handler after commit, before ack", HANDLERS)
HANDLER_AFTER_ACK = Point("handler-after-ack", "event handler after ack", HANDLERS)
RPC_BEFORE_COMMIT = Point("rpc-before-commit", "RPC after write, before commit", ("orders", "inventory"))
RPC_BEFORE_REPLY = Point("rpc-before-reply", "RPC after commit, before reply", ("orders", "inventory"))
RELAY_BEFORE_CONFIRM = Point("relay-before-confirm", "relay after publish, before confirm", RELAYS)
RELAY_BEFORE_DELETION = Point("relay-before-deletion", "relay after confirm, before the row's deletion", RELAYS)
RELAY_AFTER_DELETION = Point("relay-after-deletion", "relay after the row's deletion", RELAYS)
PROVIDER_ANSWERED = Point(
    "provider-answered", "payments after the provider's outcome, before recording it", ("payments",)
)
TIMER_BEFORE_COMMIT = Point("timer-before-commit", "timer after expiry, before commit", ("orders",))
GATEWAY_BEFORE_RESPONSE = Point(
    "gateway-before-response", "gateway after RPC result, before HTTP response", ("gateway",)
)

POINTS = (
    HANDLER_BEFORE_COMMIT,
    HANDLER_BEFORE_ACK,
    HANDLER_AFTER_ACK,
    RPC_BEFORE_COMMIT,
    RPC_BEFORE_REPLY,
    RELAY_BEFORE_CONFIRM,
    RELAY_BEFORE_DELETION,
    RELAY_AFTER_DELETION,
    PROVIDER_ANSWERED,
    TIMER_BEFORE_COMMIT,
    GATEWAY_BEFORE_RESPONSE,
)


class ArmedPoint:
    """One armed point of one service."""

    def __init__(self, folder: Path, service: str, point: Point) -> None:
        self.armed = folder / "armed" / f"{service}.{point.name}"
        self.hit = folder / "hit" / f"{service}.{point.name}"

    def arm(self) -> None:
        self.hit.parent.mkdir(parents=True, exist_ok=True)
        self.armed.parent.mkdir(parents=True, exist_ok=True)
        self.hit.unlink(missing_ok=True)
        self.armed.touch()

    def disarm(self) -> None:
        self.armed.unlink(missing_ok=True)

    def trigger(self) -> bool:
        """Called by the service at the point. True if this process must kill itself."""
        try:
            self.armed.rename(self.hit)
        except FileNotFoundError:
            return False
        return True
