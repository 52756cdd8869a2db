"""One run of schemathesis against a running suite, as one user."""

import json
import os
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extensions.http.openapi.document import document
from gateway.routes.docs import INFO
from gateway.service import GatewayService

ROOT = Path(__file__).resolve().parents[2]
SCHEMATHESIS = ROOT / ".venv/bin/schemathesis"
# Beyond its own time: loading, shrinking, the report; without one, on a busy machine.
GRACE_SECONDS = 400


@dataclass
class Run:
    """What came of it: answers by `METHOD path status`, and the report where something is wrong, else an empty text."""

    answers: Counter
    wrong: str

    @property
    def statuses(self) -> Counter:
        """How many answers had each status."""
        found: Counter = Counter()
        for name, count in self.answers.items():
            found[int(name.rpartition(" ")[2])] += count
        return found


def run(url: str, email: str, password: str, *, seed: int, folder: Path, examples: int, seconds: int = 0) -> Run:
    """Send requests, `examples` for each operation in each phase; with `seconds`, again and again for so long.

    The same seed begins the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "openapi.json").write_text(json.dumps(closed()))
    counts = folder / "counts.json"
    counts.unlink(missing_ok=True)
    command = [SCHEMATHESIS, "--config-file", "qa/fuzz/schemathesis.toml", "run", folder / "openapi.json"]
    # One worker, in the main thread: Python 3.11 cannot compile in two threads at once, and Hypothesis compiles.
    options = {"url": url, "seed": seed, "max-examples": examples, "workers": 1}
    # A short run leaves out the aliases, which lead to the same.
    options |= {"max-time": seconds} if seconds else {"exclude-tag": "aliases"}
    done = subprocess.run(
        [*command, *(f"--{name}={value}" for name, value in options.items()), "--warnings=off"],
        env={
            **os.environ,
            "FUZZ_URL": url,
            "FUZZ_EMAIL": email,
            "FUZZ_PASSWORD": password,
            "FUZZ_COUNTS": str(counts),
            "PYTHONWARNINGS": "ignore",
            "NO_COLOR": "1",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds + GRACE_SECONDS,
        check=False,
    )
    report = done.stdout + done.stderr
    (folder / "report.txt").write_text(report)
    answers = Counter(json.loads(counts.read_text())) if counts.exists() else Counter()
    return Run(answers, report if done.returncode else "")


def closed() -> dict[str, Any]:
    """Return the document with its answers closed: clients ignore fields that they do not know, this does not."""
    told = document(GatewayService, INFO)
    for schema in told["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return told
