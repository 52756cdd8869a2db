"""A Python prompt that calls the services: `make shell`, or `python -m deploy.shell`.

It is `nameko shell` with two additions: it says in one sentence that the suite is not running, and a call that
gets no result ends after ten seconds.
"""

import os
import sys

from deploy.config_file import ROOT, load
from deploy.require_running import NotRunning, require_broker

CONFIG = ROOT / "config.yml"
STARTUP = {"PYTHONSTARTUP": str(ROOT / "deploy/shell_timeout.py"), "PYTHONWARNINGS": "ignore"}
COMMAND = [sys.executable, "-m", "nameko", "shell", "--config", str(CONFIG)]


def main() -> None:
    """Replace this process with `nameko shell`; exit with 1 where the suite is not running."""
    try:
        require_broker(load()["AMQP_URI"])
    except NotRunning as error:
        sys.exit(str(error))
    os.execve(COMMAND[0], COMMAND, {**os.environ, **STARTUP})  # noqa: S606 - a fixed command without a shell


if __name__ == "__main__":
    main()
