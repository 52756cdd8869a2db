"""How fast a file of products is imported, and what memory that takes: `make import-speed`.

It starts a suite of its own, imports generated products twice (new, then unchanged), exports them, imports the export,
and prints the times and the peak memory of the gateway, of catalog and of the process that validates the file.
"""

import argparse
import contextlib
import csv
import io
import sys
import threading
import time
from pathlib import Path

from deploy import migrate, seed
from deploy.config_file import ROOT
from deploy.local.servers import Servers, remove_data
from deploy.local.suite import Suite
from docs.examples import import_file
from qa import products as generated
from qa.support.client import ADMIN
from qa.support.own_suite import set_up

PASSWORD = "Demo-pass-2026!"
GOAL_SECONDS = 60.0
START_SECONDS = 400.0
SAMPLE_SECONDS = 0.05


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args(arguments)
    folder = ROOT / "var/import-speed"
    servers = Servers(folder, environ={})
    remove_data(folder)
    with contextlib.ExitStack() as stack:
        stack.callback(servers.stop)
        environment = set_up(folder, servers.start())
        migrate.migrate(say=lambda _: None)
        suite = Suite(environment, log_dir=folder / "log")
        stack.callback(suite.stop)
        suite.start()
        suite.wait_ready(START_SECONDS)
        seed.run(say=lambda _: None)
        return measure(suite, f"http://{environment['GATEWAY_ADDRESS']}", options.rows, folder)


def measure(suite, url, rows, folder) -> int:
    """Import, export, and import again. Returns the exit code."""
    path = folder / "products.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("sku", "name", "price", "description", "is_active"))
        writer.writeheader()
        writer.writerows(generated.products(rows))
    print(f"{rows} rows, {path.stat().st_size / 1e6:.1f} MB")
    first = timed(suite, "import, all rows new", lambda: imported(url, path.read_bytes()), rows, "created")
    timed(suite, "import, unchanged", lambda: imported(url, path.read_bytes()), rows, "unchanged")
    content = exported(suite, url)
    timed(suite, "import of the export", lambda: imported(url, content), None, "unchanged")
    print(f"{'within' if first <= GOAL_SECONDS else 'NOT within'} {GOAL_SECONDS:.0f} s")
    return 0 if first <= GOAL_SECONDS else 1


def timed(suite, what, call, rows, field):
    """Print how long an import takes, and the memory. Returns the seconds."""
    with Peaks(suite) as peaks:
        began = time.monotonic()
        done = call()
        seconds = time.monotonic() - began
    if done["status"] != "DONE" or done["failed"] or (rows is not None and done[field] != rows):
        raise RuntimeError(f"{what}: {done}")
    print(f"  {what:24} {seconds:6.1f} s   {done[field]} {field}   {peaks}", flush=True)
    return seconds


def imported(url, content):
    """Import a file, and return the result."""
    return import_file.run(
        url,
        "/products/import",
        io.BytesIO(content),
        mode="all_or_nothing",
        media_type="text/csv",
        account=(ADMIN, PASSWORD),
        show=lambda _: None,
    )


def exported(suite, url):
    """Export all products, and return the file."""
    connection = import_file.connect(url)
    with Peaks(suite) as peaks:
        began = time.monotonic()
        session = import_file.log_in(connection, ADMIN, PASSWORD)
        connection.request("GET", "/products/export", headers=session)
        content = connection.getresponse().read()
        seconds = time.monotonic() - began
    print(f"  {'export':24} {seconds:6.1f} s   {len(content) / 1e6:.1f} MB   {peaks}", flush=True)
    return content


class Peaks:
    """The highest resident memory of the processes within the block, and what they had before."""

    def __init__(self, suite):
        self._suite = suite
        self._before, self._peaks = {}, {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self):
        self._before = self._resident()
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._over.set()
        self._thread.join()

    def __str__(self):
        return "  ".join(
            f"{name} {self._before.get(name, 0):.0f} -> {mib:.0f} MiB" for name, mib in self._peaks.items()
        )

    def _sample(self):
        while not self._over.wait(SAMPLE_SECONDS):
            for name, mib in self._resident().items():
                self._peaks[name] = max(mib, self._peaks.get(name, 0))

    def _resident(self):
        """Return the MiB of the gateway, of catalog, and of the child of catalog, if there is one."""
        pids = {name: self._suite.pid(name) for name in ("gateway", "catalog")}
        children = Path(f"/proc/{pids['catalog']}/task/{pids['catalog']}/children")
        with contextlib.suppress(OSError):
            pids |= dict.fromkeys(("validation",), next(iter(children.read_text().split()), None))
        found = {}
        for name, pid in pids.items():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                found[name] = int(status.partition("VmRSS:")[2].split()[0]) / 1024 if "VmRSS" in status else 0
        return found


if __name__ == "__main__":
    sys.exit(main())
