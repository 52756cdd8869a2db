"""The commands behind the Makefile: `python -m deploy.local run | demo | stop | clean`."""

import os
import sys
from http.client import HTTPException

from deploy import healthcheck
from deploy.config_file import ENV_FILE
from deploy.local import environment, launcher, report
from deploy.local.process import StartError, wait_until
from deploy.local.servers import remove_data


def run() -> int:
    """`make run`."""
    suite = launcher.Launcher()
    with suite.running() as env:
        print(report.render({**os.environ, **env}), flush=True)
        suite.wait()
    return 0


def demo() -> int:
    """`make demo`: uses a running suite, or starts one."""
    from deploy import demo as stories

    if launcher.is_running():
        return stories.tell(_address_when_ready())
    with launcher.Launcher().running() as env:
        return stories.tell(env["GATEWAY_URL"])


def _address_when_ready() -> str:
    """Wait until the suite of another terminal is ready, and return the gateway's URL."""

    def ready() -> bool:
        try:
            report = healthcheck.ask_gateway(environment.read(ENV_FILE)["GATEWAY_ADDRESS"])
        except (KeyError, OSError, HTTPException, healthcheck.Unhealthy):
            return False
        return not healthcheck.parts_down(report)

    if not wait_until(ready, seconds=90, poll=0.5):
        raise StartError(f"the suite of {launcher.VAR} is not ready after 90 s; see its terminal and var/log")
    return environment.read(ENV_FILE)["GATEWAY_URL"]


def clean() -> int:
    """Remove the servers' data outside the clone, of `make run` and of the tests; `make clean` removes the rest."""
    for memory in [launcher.VAR / "ports.json", *launcher.VAR.glob("*/ports.json")]:
        remove_data(memory.parent)
    return 0


COMMANDS = {"run": run, "demo": demo, "stop": launcher.stop, "clean": clean}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print(f"usage: python -m deploy.local {'|'.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return COMMANDS[arguments[0]]()
    except launcher.Stopped:
        return 0
    except StartError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
