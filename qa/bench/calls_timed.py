"""Measures calls per second between two processes, one at a time and ten at a time."""

import json
import time

import eventlet

WARM_UP = 50
START_SECONDS = 30.0
AT_ONCE = 10


def time_calls(call, seconds):
    """Print {"one": calls/s, "ten": calls/s} for a callable that makes one call, each for `seconds`."""
    _await_response(call)
    for _ in range(WARM_UP):
        call()
    rates = {"one": _rate(call, seconds, 1), "ten": _rate(call, seconds, AT_ONCE)}
    print(f"calls {json.dumps(rates)}", flush=True)


def _await_response(call):
    """Repeat the call until the other process is ready. The two libraries raise different errors before that."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return call()
        except Exception:
            if time.monotonic() > deadline:
                raise
            eventlet.sleep(0.2)


def _rate(call, seconds, at_once):
    made, end, began = [], time.monotonic() + seconds, time.monotonic()

    def work():
        while time.monotonic() < end:
            call()
            made.append(None)

    pool = eventlet.GreenPool(at_once)
    for _ in range(at_once):
        pool.spawn_n(work)
    pool.waitall()
    return len(made) / (time.monotonic() - began)
