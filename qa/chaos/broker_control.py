"""Commands of rabbitmqctl to the broker of a sandbox."""

import os
import subprocess

from deploy.local import install

SECONDS = 300.0  # it takes 2 s of a processor, which a slow and busy machine has not got in a minute
TRIES = 3


def control(rabbitmq, *arguments: str) -> str:
    """Run one command of rabbitmqctl; returns its output. Raises RuntimeError if it fails or takes too long."""
    # With a low priority: it starts an Erlang machine, which would slow the suite down on a small machine.
    command = ["nice", "-n", "5", str(install.rabbitmq().with_name("rabbitmqctl")), "--quiet", *arguments]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **rabbitmq.environment()}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"rabbitmqctl {arguments[0]} did not end within {SECONDS:.0f} s") from error
    if done.returncode:
        raise RuntimeError(f"rabbitmqctl {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def undo(rabbitmq, *arguments: str) -> None:
    """Run a command that repairs what a fault has broken, up to three times."""
    for tries_left in reversed(range(TRIES)):
        try:
            control(rabbitmq, *arguments)
        except RuntimeError:
            if not tries_left:
                raise
        else:
            return
