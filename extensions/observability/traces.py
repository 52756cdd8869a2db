"""Who asked for what is being done now: the request's id and trace, carried through RPC, events and every log line."""

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
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def _new_traceparent() -> str:
    made = secrets.token_hex(24)
    return f"00-{made[:32]}-{made[32:]}-01"


@dataclass(frozen=True, slots=True)
class Trace:
    """One request's identity. `deadline` is in seconds of time.monotonic(), None where nobody waits."""

    request_id: str = field(default_factory=lambda: str(new_id()))
    traceparent: str = field(default_factory=_new_traceparent)
    deadline: float | None = None
    service: str = "-"

    @property
    def headers(self) -> dict[str, str]:
        """What travels on messages and HTTP requests."""
        return {"x-request-id": self.request_id, "traceparent": self.traceparent}

    def remaining(self, limit: float) -> float:
        """Return how many seconds may still be spent, `limit` at most and 0 at least."""
        if self.deadline is None:
            return limit
        return max(0.0, min(limit, self.deadline - time.monotonic()))


TRAVELLING_HEADERS = ("x-request-id", "traceparent", "causation-id")
"""What a message that is sent once more takes along; whatever else stood in its headers was for one delivery."""

_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def existing_trace() -> Trace | None:
    """Return the trace of what is being done now, None where there is none."""
    return _current.get()


def current_trace() -> Trace:
    """Return the trace of what is being done now; a fresh one when there is none."""
    trace = _current.get()
    if trace is None:
        trace = Trace()
        _current.set(trace)
    return trace


def trace_of(headers: dict[str, Any], service: str, budget: float | None = None) -> Trace:
    """Return the trace that `headers` continue, a fresh one where they hold none that is sane.

    `budget` is how many seconds the caller will wait for an answer.
    """
    request_id, traceparent = (_string(headers.get(name)) for name in ("x-request-id", "traceparent"))
    match = _TRACEPARENT.fullmatch(traceparent)
    return Trace(
        request_id=request_id if _REQUEST_ID.fullmatch(request_id) else str(new_id()),
        # The trace stays, the span is ours.
        traceparent=f"00-{match[1]}-{secrets.token_hex(8)}-{match[2]}" if match else _new_traceparent(),
        deadline=None if budget is None else time.monotonic() + budget,
        service=service,
    )


def travelling(headers: dict[str, Any] | None) -> dict[str, str]:
    """Return those headers of a message that belong to what it says, where they are sane."""
    found = {name: (headers or {}).get(name) for name in TRAVELLING_HEADERS}
    return {name: value for name, value in found.items() if isinstance(value, str) and len(value) <= MAX_HEADER}


def _string(value: Any) -> str:
    """Return a string, or nothing: a header of AMQP can also be a list of lists that is too deep to be written out."""
    return value if isinstance(value, str) else ""


def start_trace(headers: dict[str, Any], service: str, budget: float | None = None) -> Trace:
    """Make `trace_of(...)` what this greenlet does from now on, for its log lines, calls and events."""
    trace = trace_of(headers, service, budget)
    _current.set(trace)
    return trace


def continue_trace(trace: Trace, service: str, budget: float) -> None:
    """Make `trace` what this greenlet does from now on, for `budget` seconds."""
    _current.set(replace(trace, service=service, deadline=time.monotonic() + budget))


@contextmanager
def following(trace: Trace) -> Iterator[None]:
    """Do what is done in this block for the request of `trace`."""
    before = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(before)
