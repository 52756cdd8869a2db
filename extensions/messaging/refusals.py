"""The addresses that the broker refuses: each is tried again after a pause, which grows up to a minute."""

import time
from dataclasses import dataclass, field

from extensions.runtime.backoff import Backoff

Address = tuple[str, str]
"""An exchange and a routing key."""

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
# An event type or a queue for each: far more than there are. Beyond it, addresses are tried without a pause.
MAX_ADDRESSES = 1000


@dataclass(slots=True)
class _Refusal:
    reason: str = ""
    until: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, jitter=0.2))


class Refusals:
    """What the broker refused lately, and until when it is not tried again."""

    def __init__(self) -> None:
        self._refused: dict[Address, _Refusal] = {}

    def add(self, address: Address, reason: str) -> None:
        """Record that the broker refused a message to `address`."""
        if address not in self._refused and len(self._refused) >= MAX_ADDRESSES:
            return
        refusal = self._refused.setdefault(address, _Refusal())
        refusal.reason, refusal.until = reason, time.monotonic() + refusal.backoff.next_pause()

    def remove(self, address: Address) -> bool:
        """Record that the broker accepts messages to `address`. Returns whether it refused them before."""
        return self._refused.pop(address, None) is not None

    def reason(self, address: Address) -> str:
        """Return why the broker refuses messages to `address`, "" if it may be tried."""
        refusal = self._refused.get(address)
        return refusal.reason if refusal is not None and time.monotonic() < refusal.until else ""

    def paused(self, exchange: str) -> list[str]:
        """Return the routing keys of `exchange` that are not tried at present."""
        return [key for name, key in self._refused if name == exchange and self.reason((name, key))]
