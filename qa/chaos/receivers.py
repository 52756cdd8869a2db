"""The receivers of webhooks and mails of a run, in a process of their own (receiver_process.py).

receivers = Receivers(seed)
environment = receivers.start(environment)      # with the address of the mail server
receivers.expect("/1", secret)                  # an endpoint at f"{receivers.url}/1"
receivers.webhooks, receivers.mails             # what has arrived
receivers.stop()
"""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 5.0


@dataclass(frozen=True)
class ReceivedWebhook:
    """One attempt of a delivery. One whose signature was not verified has an `error`, and neither event nor order."""

    path: str
    id: str
    digest: str  # of the body
    event: str = ""
    order: str = ""
    is_accepted: bool = False
    error: str = ""


@dataclass(frozen=True)
class ReceivedMail:
    """One mail. `order` is empty in a mail that is not about one."""

    to: str
    subject: str
    message_id: str
    order: str


class Receivers:
    """The process, and what it has received."""

    def __init__(self, seed=0):
        self.webhooks, self.mails = [], []
        self.url = ""
        self._seed, self._process = seed, None

    def start(self, environment):
        """Start it on the clock of `environment`; returns `environment` with the settings of the mails."""
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "qa.chaos.receiver_process", str(self._seed)],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # the parent handles Ctrl-C
            text=True,
        )
        ports = json.loads(self._process.stdout.readline())["ports"]
        self.url = f"http://127.0.0.1:{ports['web']}"
        threading.Thread(target=self._read, daemon=True).start()
        return environment | {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(ports["mail"])}

    def expect(self, path, secret):
        """Accept webhooks at this path that are signed with the secret."""
        print(json.dumps({"path": path, "secret": secret}), file=self._process.stdin, flush=True)

    def stop(self):
        """End the process."""
        if self._process is None:
            return
        self._process.stdin.close()
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=STOP_SECONDS)
        self._process = None

    def _read(self):
        for line in self._process.stdout:
            [(kind, what)] = json.loads(line).items()
            if kind == "webhook":
                self.webhooks.append(ReceivedWebhook(**what))
            else:
                self.mails.append(ReceivedMail(**what))
