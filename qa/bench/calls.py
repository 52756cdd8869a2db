"""RPC round trips a second between two processes, by stock Nameko and by the suite's own transport, on one broker."""

import json
import subprocess
import threading

from qa.bench.ground import end
from qa.bench.stock import NAMEKO

STOCK = ("qa/bench/stock.yml", "qa.bench.calls_stock")
OURS = ("config.yml", "qa.bench.calls_ours")
MARK = "calls "
START_SECONDS = 20.0
STARTS = 3
UNUSED = {"STOCK_ADDRESS": "127.0.0.1:0", "STOCK_ORDERS_URL": "''", "STOCK_NOTIFICATIONS_URL": "''"}


def calls_per_second(ground, transport, seconds):
    """Return {"one": calls/s one at a time, "ten": calls/s ten at a time}."""
    # A caller of stock Nameko that calls before its reply queue is there waits for ever: then both begin again.
    for _ in range(STARTS):
        rates = _time_calls(ground, transport, seconds)
        if rates:
            return rates
    raise RuntimeError(f"the caller of {transport[1]} says nothing: see {_log(ground)}")


def _time_calls(ground, transport, seconds):
    """Start both processes; returns None where the caller has ended or had nothing to say in time."""
    config, module = transport
    environment = UNUSED | {"CALL_SECONDS": str(seconds)}

    def run(name, stdout=None):
        command = (NAMEKO, "run", "--config", config, f"{module}:{name}")
        return ground.spawn(*command, log=_log(ground), environment=environment, stdout=stdout)

    processes = [run("Echo"), run("Caller", subprocess.PIPE)]
    patience = threading.Timer(START_SECONDS + 2 * seconds, end, [processes])  # which ends the lines below, too
    patience.start()
    try:
        for line in processes[1].stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        return None
    finally:
        patience.cancel()
        end(processes)


def _log(ground):
    return ground.folder / "log/calls.log"
