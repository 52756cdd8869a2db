"""RPC round trips a second between two processes, by stock Nameko and by the suite's own transport, on one broker."""

import json
import subprocess

from tests.bench.ground import end
from tests.bench.stock import NAMEKO

STOCK = ("tests/bench/stock.yml", "tests.bench.calls_stock")
OURS = ("config.yml", "tests.bench.calls_ours")
MARK = "calls "
UNUSED = {"STOCK_ADDRESS": "127.0.0.1:0", "STOCK_ORDERS_URL": "''", "STOCK_NOTIFICATIONS_URL": "''"}


def calls_per_second(ground, transport, seconds):
    """Return {"one": calls/s one at a time, "ten": calls/s ten at a time}."""
    config, module = transport
    environment = UNUSED | {"CALL_SECONDS": str(seconds)}
    log = ground.folder / "log/calls.log"

    def run(name, stdout=None):
        command = (NAMEKO, "run", "--config", config, f"{module}:{name}")
        return ground.spawn(*command, log=log, environment=environment, stdout=stdout)

    processes = [run("Echo")]
    try:
        caller = run("Caller", subprocess.PIPE)
        processes.append(caller)
        for line in caller.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError(f"the caller of {module} ended: see {log}")
    finally:
        end(processes)
