"""Clients of the gateway that are slow or hostile, in a process of their own (slow_clients.py)."""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from deploy.local.suite import ROOT
from qa.chaos.faults import FaultNotInjected
from qa.chaos.probes import GATEWAY
from qa.chaos.slow_faults import NOTHING, Effect, SlowFault

END_SECONDS = 10.0
KIBIBYTES_PER_MEBIBYTE = 1024


@contextmanager
def clients(url, kind, number):
    """Run the clients within the block; yields a function that ends them and returns what they have seen."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qa.chaos.slow_clients", url, kind, str(number)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout.readline() != "ready\n":
            raise FaultNotInjected(f"the clients ended with {process.wait(timeout=END_SECONDS)}")
        yield lambda: json.loads(process.communicate(timeout=END_SECONDS)[0])
    finally:
        process.kill()
        process.wait(timeout=END_SECONDS)
        process.stdin.close()
        process.stdout.close()


def resident_mebibytes(pid):
    """The resident memory of a process in MiB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return int(status.partition("VmRSS:")[2].split()[0]) / KIBIBYTES_PER_MEBIBYTE


def kind(words, name, number):
    """Return the fault of `number` clients of the kind `name` of slow_clients.py."""

    def plan(sandbox, _chance):
        @contextmanager
        def broken():
            pid = sandbox.suite.pid(GATEWAY)
            before = resident_mebibytes(pid)
            with clients(sandbox.url, name, number) as end:

                def note():
                    grown = resident_mebibytes(pid) - before
                    seen = ", ".join(f"{count} {what}" for what, count in sorted(end().items()))
                    return f"{number} clients: {seen}; the gateway grew by {grown:.0f} MiB"

                yield note

        return Effect(words, frozenset(), broken, exclusive=("clients",))

    return SlowFault(words, plan, NOTHING)


FAULTS = [
    kind("clients send their heads slowly", "heads", 200),
    kind("clients send their bodies slowly", "bodies", 200),
    kind("clients read large responses slowly", "readers", 150),
    kind("clients send logins with thousands of fields", "logins", 8),
]
