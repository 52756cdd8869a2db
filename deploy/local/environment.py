"""var/env: the addresses of this run as shell variables, for commands in another terminal (`. var/env`).

It exports settings of config.yml only, and nothing that changes the user's own Python. Its name is not `.env`, which
docker compose would read.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from deploy.local.servers import OURS


def render(variables: Mapping[str, str]) -> str:
    """Return lines of `export NAME=value`, quoted for a POSIX shell."""
    head = "# Written by `make run` at every start. In a shell: . var/env\n"
    return head + "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def parse(text: str) -> dict[str, str]:
    """Return the variables of such a file."""
    found = {}
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if len(words) == 2 and words[0] == "export":
            name, _, value = words[1].partition("=")
            found[name] = value
    return found


def write(path: Path, variables: Mapping[str, str]) -> None:
    """Write the file atomically, readable by its owner only: it may hold passwords of the user's own servers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(render({**variables, OURS: str(path)}))
    unfinished.replace(path)


def read(path: Path) -> dict[str, str]:
    """Return the variables of the file; empty if there is none."""
    try:
        return parse(path.read_text())
    except FileNotFoundError:
        return {}
