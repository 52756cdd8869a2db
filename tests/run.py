"""Runs the tests in several pytest processes at once: `python -m tests.run [pytest arguments]` (`make test`).

Most tests wait: for a broker, a deadline, a process that starts. So more workers than processors are useful. Each
worker has its own servers, which are started when its first test needs them. The results are joined into one report,
which ends as pytest's does: with the slowest tests, the failures, and one line with the totals.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from deploy.local.process import kill_tree, spawn, wait_until
from qa.support.machine_speed import slowness
from tests.worker import FOLDER_VARIABLE, NAME_VARIABLE

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "var/test-run"
WORKERS = 4
WIDTH = 100
SLOWEST = 30
POLL = 0.2  # seconds
STOP_SECONDS = 60
SILENCE_SECONDS = 3600  # no test takes so long, even on a slow machine: workers that write nothing for this time hang
NO_TESTS = 5  # pytest's exit code of a worker that ran no test
FAILURES = {"failed", "error"}
ORDER = ("failed", "passed", "skipped", "xfailed", "xpassed", "error")  # as pytest prints them


class Worker:
    """One pytest process and what it has written."""

    def __init__(self, name, arguments):
        self.name = name
        self.log = FOLDER / f"{name}.log"
        self._results = FOLDER / f"{name}.jsonl"
        self._results.touch()
        self._reader = self._results.open()
        self._incomplete = ""
        self.has_failures = False  # among the results that were read
        data = f"var/test-{name}"
        environment = os.environ | {FOLDER_VARIABLE: str(FOLDER), NAME_VARIABLE: name, "ORDER_SUITE_TEST_DATA": data}
        environment["PYTHONDONTWRITEBYTECODE"] = ""  # else every run rewrites the assertions of all tests again
        command = [sys.executable, "-m", "pytest", "-p", "tests.worker", "-p", "no:cacheprovider", *arguments]
        # In a new session: Ctrl-C then reaches only this process, which interrupts each worker once.
        self.process = spawn(command, env=environment, log=self.log, cwd=ROOT, on_launcher_death=signal.SIGINT)

    def new_results(self):
        """What it has written since the last call."""
        *lines, self._incomplete = (self._incomplete + self._reader.read()).split("\n")
        results = [json.loads(line) for line in lines]
        self.has_failures |= any(result.get("category") in FAILURES for result in results)
        return results


class Report:
    """The joined results.

    Tests are counted by file: ids of parameters may differ from process to process (an address, the order of a set).
    """

    def __init__(self):
        self.totals = Counter()
        self.expected = None  # file -> number of tests, as the first worker collected them
        self.finished = Counter()
        self.problems = []  # (test, when, text)
        self.reasons = Counter()
        self.durations = []
        self._files = defaultdict(Counter)

    def add(self, entry):
        """Add one line of a worker's results. Prints each file whose tests have all ended."""
        if "collected" in entry:
            self._collect(entry["collected"])
            return
        test, category = entry["test"], entry["category"]
        self.durations.append((entry["seconds"], entry["when"], test))
        if category:
            self.totals[category] += 1
            self._files[file_of(test)][category] += 1
        if category in FAILURES:
            self.problems.append((test, entry["when"], entry["text"]))
            print(f"{category.upper()} {test} ({entry['when']})", flush=True)
        elif category not in {"", "passed"}:
            self.reasons[category, test.partition("[")[0], entry["text"].strip().rpartition("\n")[2]] += 1
        if entry["when"] == "teardown":
            self._finish(file_of(test))

    def _collect(self, tests):
        files = Counter(map(file_of, tests))
        if self.expected is None:
            self.expected = files
            print(f"{len(tests)} tests in {len(files)} files", flush=True)
        elif files != self.expected:
            self.add_error("collection", "the workers have collected different tests")

    def _finish(self, file):
        self.finished[file] += 1
        if self.finished[file] == self.expected[file]:
            share = 100 * self.finished.total() // self.expected.total()
            print(f"{file}: {totals(self._files[file])}".ljust(WIDTH - 6) + f"[{share:3}%]", flush=True)

    def close(self, workers):
        """Add the errors of the run itself: a worker that ended early, a test that no worker ran."""
        for worker in workers:
            code = worker.process.returncode
            if code not in {0, 1, NO_TESTS} or (code == 1 and not worker.has_failures):
                end = "\n".join(worker.log.read_text(errors="replace").splitlines()[-60:])
                self.add_error(f"worker {worker.name}", f"ended with {code}:\n{end}")
        missing = (self.expected or Counter()) - self.finished
        if missing:
            files = "\n".join(f"{count} of {file}" for file, count in missing.items())
            self.add_error(f"{missing.total()} tests", f"no worker ran:\n{files}")
        if not self.finished:
            self.add_error("run", "no tests ran")

    def add_error(self, what, text):
        """Add an error of the run itself."""
        self.totals["error"] += 1
        self.problems.append((what, "run", text))

    def print(self, seconds):
        """The slowest tests, the failures, and the closing line, in pytest's form."""
        for test, when, text in self.problems:
            print(f"{f' {test} ({when}) ':_^{WIDTH}}\n{text}\n")
        print(f"{f' slowest {SLOWEST} durations ':=^{WIDTH}}")
        for duration, when, test in sorted(self.durations, reverse=True)[:SLOWEST]:
            print(f"{duration:.2f}s {when:<8} {test}")
        print(f"{' short test summary info ':=^{WIDTH}}")
        for (category, test, reason), count in self.reasons.items():
            print(f"{category.upper()} [{count}] {test}: {reason}")
        for test, when, text in self.problems:
            print(f"{'FAILED' if when == 'call' else 'ERROR'} {test} - {reason_of(text)[:WIDTH]}")
        minutes = f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"
        print(f"{f' {totals(self.totals)} in {seconds:.2f}s ({minutes}) ':=^{WIDTH}}", flush=True)


def file_of(test):
    """The file of a node id."""
    return test.partition("::")[0]


def reason_of(text):
    """The first line of the error in a failure's text, which pytest marks with an E."""
    lines = text.strip().splitlines() or [""]
    return next((line[1:].strip() for line in lines if line.startswith("E ")), lines[-1])


def totals(counts):
    """`3 failed, 12 passed`."""
    names = {"error": "error" if counts["error"] == 1 else "errors"}
    return ", ".join(f"{counts[name]} {names.get(name, name)}" for name in ORDER if counts[name]) or "no tests ran"


def run(workers, report):
    """Read what the workers write until all of them have ended, or have written nothing for SILENCE_SECONDS."""
    running, last_result = True, time.monotonic()
    while running:
        running = any(worker.process.poll() is None for worker in workers)
        for worker in workers:
            for entry in worker.new_results():
                report.add(entry)
                last_result = time.monotonic()
        if running and time.monotonic() - last_result > SILENCE_SECONDS:
            report.add_error("run", f"no test has ended for {SILENCE_SECONDS} s")
            return
        if running:
            time.sleep(POLL)


def stop(workers):
    """Interrupt the workers, and wait until they have stopped their servers."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGINT)
    for worker in workers:
        if not wait_until(lambda worker=worker: worker.process.poll() is not None, seconds=STOP_SECONDS):
            kill_tree(worker.process.pid)
            worker.process.wait()


def main():
    """The command line; 0 when every test passed."""
    sys.stdout.reconfigure(errors="backslashreplace")  # the text of a failure can hold half of a surrogate pair
    parser = argparse.ArgumentParser(prog="python -m tests.run", description=__doc__)
    # On a slow machine fewer of them already use all of its time, and each test meets its deadlines sooner.
    usual = WORKERS if slowness() == 1 else WORKERS // 2
    parser.add_argument("--workers", type=int, default=int(os.environ.get("TEST_WORKERS", usual)))
    options, arguments = parser.parse_known_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "claims").mkdir(parents=True)
    began = time.monotonic()
    workers = [Worker(str(number), arguments) for number in range(1, options.workers + 1)]
    report = Report()
    try:
        run(workers, report)
    except KeyboardInterrupt:
        report.add_error("run", "interrupted")
    finally:
        stop(workers)
    report.close(workers)
    report.print(time.monotonic() - began)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
