"""RPC round trips per second between two processes, with unmodified Nameko and with the suite's own transport."""

import json
import subprocess
import threading

from qa.bench.bench_servers import end
from qa.bench.unmodified_nameko import NAMEKO

UNMODIFIED_NAMEKO = ("qa/bench/unmodified_nameko.yml", "qa.bench.calls_unmodified_nameko")
OURS = ("config.yml", "qa.bench.calls_ours")
MARK = "calls "
START_SECONDS = 20.0
STARTS = 3
UNUSED = {"NAMEKO_ADDRESS": "127.0.0.1:0", "NAMEKO_ORDERS_URL": "''", "NAMEKO_NOTIFICATIONS_URL": "''"}


def calls_per_second(bench_servers, transport, seconds):
    """Return {"one": calls/s one at a time, "ten": calls/s ten at a time}."""
    # An unmodified Nameko caller that calls before its reply queue exists hangs. Then both processes are started again.
    for _ in range(STARTS):
        rates = _time_calls(bench_servers, transport, seconds)
        if rates:
            return rates
    raise RuntimeError(f"the caller of {transport[1]} printed no result: see {_log(bench_servers)}")


def _time_calls(bench_servers, transport, seconds):
    """Start both processes; returns None if the caller ended, or printed no result in time."""
    config, module = transport
    environment = UNUSED | {"CALL_SECONDS": str(seconds)}

    def run(name, stdout=None):
        command = (NAMEKO, "run", "--config", config, f"{module}:{name}")
        return bench_servers.spawn(*command, log=_log(bench_servers), environment=environment, stdout=stdout)

    processes = [run("Echo"), run("Caller", subprocess.PIPE)]
    timeout = threading.Timer(START_SECONDS + 2 * seconds, end, [processes])  # it also ends the loop below
    timeout.start()
    try:
        for line in processes[1].stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        return None
    finally:
        timeout.cancel()
        end(processes)


def _log(bench_servers):
    return bench_servers.folder / "log/calls.log"
