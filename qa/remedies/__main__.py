"""Takes every remedy out of a copy of the tree, one at a time, and demands that its named test turns red.

python -m qa.remedies                all of them, into the tables of docs/reliability.md (about ten minutes)
python -m qa.remedies H7 15          only these
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
from qa.remedies import hazards, pitfalls
from qa.remedies.remedy import apply_all
from qa.remedies.table import put_into_docs, table_in_docs

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_SECONDS = 120


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("only", nargs="*", help="hazards (H7) and pitfalls (15)")
    only = set(arguments.parse_args().only)
    chosen = [
        (module, remedy)
        for module in (hazards, pitfalls)
        for remedy in module.REMEDIES
        if not only or remedy.against in only
    ]
    folder = Path(tempfile.mkdtemp(prefix="order-suite-remedies-"))
    servers = Servers(folder / "servers")
    try:
        copy_tree(folder)
        shared = servers.start()  # once: what a test does to them must not outlast it
        failures = must_be_green(folder, [remedy for _, remedy in chosen], shared)
        for module, remedy in chosen:
            outcome, is_red = without(remedy, folder, {} if remedy.own_servers else shared)
            print(f"{remedy.against:4} {outcome:12} {remedy.what}", flush=True)
            failures += [] if is_red else [f"{remedy.against} {remedy.what}: {outcome}"]
            put_into_docs(module, {(remedy.against, remedy.what): outcome})
    finally:
        servers.stop()
        shutil.rmtree(servers.data, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    print(table_in_docs(hazards), table_in_docs(pitfalls), sep="\n")
    sys.exit("\n".join(["these remedies are not shown to be needed:", *failures]) if failures else 0)


def copy_tree(folder):
    """Copy what git knows, and what it does not know yet; the virtual environment is shared."""
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


def must_be_green(folder, remedies, shared):
    """Run every named test on the untouched tree; returns what is wrong with that."""
    failures = []
    for addresses in (shared, {}):
        tests = sorted({remedy.test for remedy in remedies if remedy.own_servers is not bool(addresses)})
        if tests:
            code, seconds, said = run(folder, tests, addresses, timeout=TIMEOUT_SECONDS * 5)
            print(f"the untouched tree: {len(tests)} tests, {said}, {seconds:.0f} s", flush=True)
            failures += [] if code == 0 else [f"the untouched tree: {said}"]
    return failures


def without(remedy, folder, addresses):
    """Return how the test ended without the remedy, and whether that was red."""
    try:
        undo = apply_all(remedy.patches, folder)
    except LookupError as error:
        return f"moved: {error}", False
    try:
        code, seconds, said = run(folder, [remedy.test], addresses, timeout=TIMEOUT_SECONDS)
    finally:
        undo()
    if code is None:
        return f"hangs, {TIMEOUT_SECONDS} s", True
    is_red = code == 1 and "failed" in said
    return (f"{seconds:.0f} s" if is_red else f"NOT RED ({code}): {said}"), is_red


def run(folder, tests, addresses, timeout):
    """Run pytest in the copy; returns its exit code (None when it hung), its seconds, and its last words.

    With `addresses`, the tests use the servers there; without, they start their own, which they may stop and kill.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | addresses
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
    said = re.findall(r"^.*\b(?:passed|failed|error|errors)\b.* in .*$", log.read_text(), re.MULTILINE)
    return code, time.monotonic() - began, said[-1] if said else log.read_text()[-300:]


if __name__ == "__main__":
    main()
