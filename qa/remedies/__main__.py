"""Removes every remedy from a copy of the tree, one at a time, and checks that its named test fails.

python -m qa.remedies                all of them, into the tables of docs/reliability.md (about ten minutes)
python -m qa.remedies H7 15 W1       only these
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy.local.servers import Servers
from qa.remedies import customers, hazards, outside_calls, pitfalls
from qa.remedies.remedy import apply_all
from qa.remedies.table import put_into_docs, table_in_docs
from qa.support.machine_speed import slowness

ROOT = Path(__file__).parent.parent.parent
MODULES = (hazards, pitfalls, outside_calls, customers)
TIMEOUT_SECONDS = 240
# How long a test waits for something that a removed remedy prevents. The unchanged tree must pass with it.
WAIT_SECONDS = 15.0


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("only", nargs="*", help="hazards (H7), pitfalls (15), calls outside (W1) and customers (C1)")
    only = set(arguments.parse_args().only)
    chosen = [
        (module, remedy) for module in MODULES for remedy in module.REMEDIES if not only or remedy.against in only
    ]
    folder = Path(tempfile.mkdtemp(prefix="order-suite-remedies-"))
    servers = Servers(folder / "servers")
    try:
        copy_tree(folder)
        shared = servers.start()  # once, for all tests that leave the servers running and unchanged
        failures = check_that_tests_pass(folder, [remedy for _, remedy in chosen], shared)
        for module, remedy in chosen:
            outcome, failed = run_without(remedy, folder, {} if remedy.own_servers else shared)
            print(f"{remedy.against:4} {outcome:12} {remedy.what}", flush=True)
            failures += [] if failed else [f"{remedy.against} {remedy.what}: {outcome}"]
            put_into_docs(module, {(remedy.against, remedy.what): outcome})
    finally:
        servers.stop()
        shutil.rmtree(servers.data, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    print(*map(table_in_docs, MODULES), sep="\n")
    sys.exit("\n".join(["not proved to be necessary:", *failures]) if failures else 0)


def copy_tree(folder):
    """Copy tracked and untracked files, but not ignored ones; the virtual environment is shared."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())


def check_that_tests_pass(folder, remedies, shared):
    """Run every named test on the unchanged tree; returns the failures."""
    failures = []
    for addresses in (shared, {}):
        tests = sorted({remedy.test for remedy in remedies if remedy.own_servers is not bool(addresses)})
        if tests:
            code, seconds, summary = run(folder, tests, addresses, timeout=TIMEOUT_SECONDS * 5)
            print(f"the unchanged tree: {len(tests)} tests, {summary}, {seconds:.0f} s", flush=True)
            failures += [] if code == 0 else [f"the unchanged tree: {summary}"]
    return failures


def run_without(remedy, folder, addresses):
    """Run the test without the remedy; returns (outcome, whether it failed)."""
    try:
        undo = apply_all(remedy.patches, folder)
    except LookupError as error:
        return f"moved: {error}", False
    try:
        code, seconds, summary = run(folder, [remedy.test], addresses, timeout=TIMEOUT_SECONDS)
    finally:
        undo()
    if code is None:
        return f"hangs, {TIMEOUT_SECONDS} s", True
    failed = code == 1 and "failed" in summary
    return (f"{seconds:.0f} s" if failed else f"DID NOT FAIL ({code}): {summary}"), failed


def run(folder, tests, addresses, timeout):
    """Run pytest in the copy; returns (exit code or None on timeout, seconds, pytest's summary line).

    With `addresses`, the tests use these servers; without, they start their own, which they may stop and kill.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    waits = {"TEST_TIMEOUT_SECONDS": str(WAIT_SECONDS * slowness())}
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | waits | addresses
    environment.pop("PYTHONPATH", None)
    began = time.monotonic()
    log = folder / "var/remedies.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()  # its servers end with it
            process.wait()
            code = None
    summaries = re.findall(r"^.*\b(?:passed|failed|error|errors)\b.* in .*$", log.read_text(), re.MULTILINE)
    return code, time.monotonic() - began, summaries[-1] if summaries else log.read_text()[-300:]


if __name__ == "__main__":
    main()
