"""The trace of the current request: its id, traceparent and deadline, carried by RPC calls, events and log lines."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from contracts.ids import new_id

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
MAX_HEADER = 128
_MILLISECONDS = re.compile(r"[0-9]{1,6}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def _new_traceparent() -> str:
    made = secrets.token_hex(24)
    return f"00-{made[:32]}-{made[32:]}-01"


REDIS_WAIT_HEADER = "x-redis-wait-ms"
"""The header of a call with the milliseconds that its request has waited for Redis."""


@dataclass(slots=True)
class RedisWait:
    """How long a request has waited for Redis, in all its greenlets and processes."""

    seconds: float = 0.0

    @classmethod
    def of(cls, headers: dict[str, Any]) -> "RedisWait":
        """Return what the headers of a call say; nothing was waited if they do not say it."""
        found = _string(headers.get(REDIS_WAIT_HEADER))
        return cls(int(found) / 1000 if _MILLISECONDS.fullmatch(found) else 0.0)


@dataclass(frozen=True, slots=True)
class Trace:
    """The identity of a request. `deadline` is a value of time.monotonic(), None if no caller waits.

    `redis_wait` is None for what is no request: each of its commands to Redis may take the whole time.
    """

    request_id: str = field(default_factory=lambda: str(new_id()))
    traceparent: str = field(default_factory=_new_traceparent)
    deadline: float | None = None
    service: str = "-"
    redis_wait: RedisWait | None = field(default=None, compare=False)

    @property
    def call_headers(self) -> dict[str, str]:
        """The headers for calls: what they do is a part of the same request."""
        milliseconds = round(1000 * self.redis_wait.seconds) if self.redis_wait else 0
        return self.headers | {REDIS_WAIT_HEADER: str(milliseconds)} if milliseconds else self.headers

    @property
    def headers(self) -> dict[str, str]:
        """The headers for outgoing messages and HTTP requests."""
        return {"x-request-id": self.request_id, "traceparent": self.traceparent}

    def remaining(self, limit: float) -> float:
        """Return the seconds until the deadline, between 0 and `limit`."""
        if self.deadline is None:
            return limit
        return max(0.0, min(limit, self.deadline - time.monotonic()))


PROPAGATED_HEADERS = ("x-request-id", "traceparent", "causation-id")
"""The headers that a republished message keeps; all others belonged to one delivery."""

_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def existing_trace() -> Trace | None:
    """Return the trace of this greenlet, None if it has none."""
    return _current.get()


def current_trace() -> Trace:
    """Return the trace of this greenlet; a new one if it has none."""
    trace = _current.get()
    if trace is None:
        trace = Trace()
        _current.set(trace)
    return trace


def trace_of(headers: dict[str, Any], service: str, budget: float | None = None) -> Trace:
    """Return the trace that `headers` continue; missing or malformed parts are replaced by new ones.

    `budget` is the caller's timeout in seconds.
    """
    request_id, traceparent = (_string(headers.get(name)) for name in ("x-request-id", "traceparent"))
    match = _TRACEPARENT.fullmatch(traceparent)
    return Trace(
        request_id=request_id if _REQUEST_ID.fullmatch(request_id) else str(new_id()),
        # The trace id is kept, the span id is new.
        traceparent=f"00-{match[1]}-{secrets.token_hex(8)}-{match[2]}" if match else _new_traceparent(),
        deadline=None if budget is None else time.monotonic() + budget,
        service=service,
    )


def propagated_headers(headers: dict[str, Any] | None) -> dict[str, str]:
    """Return the well-formed PROPAGATED_HEADERS of a message."""
    found = {name: (headers or {}).get(name) for name in PROPAGATED_HEADERS}
    return {name: value for name, value in found.items() if isinstance(value, str) and len(value) <= MAX_HEADER}


def _string(value: Any) -> str:
    """Return `value` if it is a string, else "": an AMQP header can be any structure, even one too deep to format."""
    return value if isinstance(value, str) else ""


def start_trace(
    headers: dict[str, Any], service: str, budget: float | None = None, redis_wait: RedisWait | None = None
) -> Trace:
    """Set the trace of this greenlet to `trace_of(...)`, for its log lines, calls and events."""
    trace = replace(trace_of(headers, service, budget), redis_wait=redis_wait)
    _current.set(trace)
    return trace


def continue_trace(trace: Trace, service: str, budget: float) -> None:
    """Set the trace of this greenlet to `trace`, with a deadline in `budget` seconds."""
    _current.set(replace(trace, service=service, deadline=time.monotonic() + budget))


@contextmanager
def use_trace(trace: Trace) -> Iterator[None]:
    """Set the trace of this greenlet inside the block."""
    before = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(before)
