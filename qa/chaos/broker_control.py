"""Commands of rabbitmqctl to a private broker, and what its users may publish."""

import json
import os
import subprocess
from base64 import b64encode

from deploy.local import install

SECONDS = 300.0  # rabbitmqctl takes 1 to 2 s of a processor, which a slow and busy machine has not got in a minute
TRIES = 3


def control(rabbitmq, command: str, *arguments: str) -> None:
    """Run one command of rabbitmqctl. Raises RuntimeError if it fails or takes too long.

    If Erlang's erl_call is there, it calls the same function of the node: rabbitmqctl starts an Erlang machine first,
    which takes a hundred times as long and slows the suite down on a small machine.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **rabbitmq.environment()}
    caller = install.find("erl_call")
    if caller:
        run = [str(caller), "-sname", environment["RABBITMQ_NODENAME"], "-e"]
    else:
        tool = install.rabbitmq().with_name("rabbitmqctl")
        run = ["nice", "-n", "5", str(tool), "--quiet", command, *arguments]
    try:
        done = subprocess.run(
            run,
            env=environment,
            cwd="/",
            input=f"{_function(command, arguments)}.\n" if caller else "",
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{command} did not end within {SECONDS:.0f} s") from error
    if done.returncode or (caller and done.stdout.strip() != "{ok, ok}"):
        raise RuntimeError(f"{command} failed: {done.stderr.strip() or done.stdout.strip()}")


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


def topic_permissions(rabbitmq, user: str, exchange: str) -> tuple[str, str]:
    """Return the (write, read) expressions of a user for an exchange, from the definitions of the broker."""
    definitions = json.loads((rabbitmq.home / "definitions.json").read_text())
    return next(
        (one["write"], one["read"])
        for one in definitions["topic_permissions"]
        if (one["user"], one["exchange"]) == (user, exchange)
    )


def _function(command: str, arguments: tuple[str, ...]) -> str:
    """The call of a function of the node with which rabbitmqctl executes this command."""
    if command == "set_topic_permissions":
        _p, vhost, user, *rest = arguments
        values = ", ".join(map(_binary, (user, vhost, *rest, "rmq-cli")))
        return f"rabbit_auth_backend_internal:set_topic_permissions({values})"
    if command == "set_vm_memory_high_watermark":
        return f'vm_memory_monitor:set_vm_memory_high_watermark({{absolute, "{arguments[-1]}"}})'
    if command == "set_disk_free_limit":
        return f'rabbit_disk_monitor:set_disk_free_limit("{arguments[0]}")'
    raise ValueError(command)


def _binary(text: str) -> str:
    return f'base64:decode("{b64encode(text.encode()).decode()}")'
