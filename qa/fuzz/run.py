"""One run of schemathesis against a running suite, as one user."""

import json
import os
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extensions.http.message.request import Access
from extensions.http.openapi.document import SECURITY, document
from extensions.http.routing.declaration import EVENT_STREAM
from gateway.routes.docs import INFO
from gateway.service import GatewayService
from qa.support.client import ADMIN

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "qa/fuzz/schemathesis.toml"
SCHEMATHESIS = ROOT / ".venv/bin/schemathesis"
# The process may run this much longer than requested: it also loads, shrinks examples and writes the report.
# A wrong own password counts as a failed login, and the logins of the fuzzer itself would soon be refused.
LEFT_OUT = ("change_password", "delete_account")
EXTRA_SECONDS = 1800  # for a run that hangs; a slow machine needs many minutes


@dataclass
class Run:
    """The result: the number of responses by `METHOD path status`, and the report of the failures, or an empty text."""

    responses: Counter
    failures: str

    @property
    def statuses(self) -> Counter:
        """The number of responses by status."""
        found: Counter = Counter()
        for name, count in self.responses.items():
            found[int(name.rpartition(" ")[2])] += count
        return found


def run(url: str, email: str, password: str, *, seed: int, folder: Path, examples: int, seconds: int = 0) -> Run:
    """Send `examples` requests for each operation in each phase; with `seconds`, repeat this for that time.

    Runs with the same seed begin with the same requests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = closed()
    (folder / "openapi.json").write_text(json.dumps(described))
    settings = folder / "schemathesis.toml"
    settings.write_text(SETTINGS.read_text() + ("" if seconds or email == ADMIN else only_samples(described)))
    counts = folder / "counts.json"
    counts.unlink(missing_ok=True)
    command = [SCHEMATHESIS, "--config-file", settings, "run", folder / "openapi.json"]
    # One worker, in the main thread: Hypothesis compiles code, and Python 3.11 cannot compile in two threads at once.
    options = {"url": url, "seed": seed, "max-examples": examples, "workers": 1}
    # A short run skips aliases of operations, and see only_samples().
    options |= {"max-time": seconds} if seconds else {"exclude-tag": "aliases"}
    done = subprocess.run(
        [
            *command,
            *(f"--{name}={value}" for name, value in options.items()),
            *(f"--exclude-operation-id={name}" for name in LEFT_OUT),
            "--warnings=off",
        ],
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
        timeout=seconds + EXTRA_SECONDS,
        check=False,
    )
    report = done.stdout + done.stderr
    (folder / "report.txt").write_text(report)
    responses = Counter(json.loads(counts.read_text())) if counts.exists() else Counter()
    return Run(responses, report if done.returncode else "")


def only_samples(described: dict[str, Any]) -> str:
    """Return settings for a customer: operations of administrators get generated requests, but not also each invalid
    value of each field. All of these are 403, half of the requests of a run.
    """
    forbidden = [
        operation["operationId"]
        for methods in described["paths"].values()
        for operation in methods.values()
        if operation.get("security") == SECURITY[Access.ADMIN]
    ]
    return f"""
[[operations]]
include-operation-id = {json.dumps(forbidden)}
phases.coverage.enabled = false
"""


def is_stream(operation: dict[str, Any]) -> bool:
    """Tell whether the response of an operation has no end."""
    return EVENT_STREAM in operation["responses"].get("200", {}).get("content", {})


def closed() -> dict[str, Any]:
    """Return the document with unknown fields forbidden in all schemas, so that the fuzzer reports them.

    Streams are left out, with the links to them: the fuzzer would wait for their end.
    """
    strict = document(GatewayService, INFO)
    for methods in strict["paths"].values():
        for method, operation in list(methods.items()):
            if is_stream(operation):
                del methods[method]
    strict["paths"] = {path: methods for path, methods in strict["paths"].items() if methods}
    names = {operation["operationId"] for methods in strict["paths"].values() for operation in methods.values()}
    for methods in strict["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                links = response.get("links", {})
                response["links"] = {name: link for name, link in links.items() if link["operationId"] in names}
    for schema in strict["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return strict
