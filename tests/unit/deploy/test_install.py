"""Missing programs are installed once, also if several suites start at the same time."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# A machine on which this process is root, and whose apt takes a moment to make a file.
SUITE = """
import contextlib, os, shutil, sys, time
from pathlib import Path
from deploy.local import install

folder = Path(sys.argv[1])
program = folder / "program"
install.APT = folder
install.PACKAGES = (install.Package("thing", lambda: program if program.exists() else None, ()),)
install._no_daemons = contextlib.nullcontext
os.geteuid = lambda: 0
shutil.which = lambda name: name if name == "apt-get" else None

def apt(arguments, log):
    with (folder / "calls").open("a") as calls:
        calls.write(arguments[0] + chr(10))
    time.sleep(0.2)
    if arguments[0] == "install":
        program.touch()

install._apt = apt
print("ready", flush=True)
sys.stdin.readline()
install.ensure({"thing"}, log=folder / "log", say=lambda _text: None)
"""


def test_suites_that_start_at_the_same_time_install_a_package_once(tmp_path):
    command = [sys.executable, "-c", SUITE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    suites = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for suite in suites:
        assert suite.stdout.readline() == "ready\n"
    for suite in suites:
        suite.stdin.write("go\n")
        suite.stdin.flush()
    for suite in suites:
        suite.communicate(timeout=60)
        assert suite.returncode == 0
    assert (tmp_path / "calls").read_text().split() == ["update", "install"]
