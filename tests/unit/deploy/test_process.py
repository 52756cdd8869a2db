import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.process import PidFile, kill_tree, pids, spawn, started_at, stop_process, tail, wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(command, **more):
        process = spawn(
            command,
            env=dict(os.environ),
            log=tmp_path / "log",
            cwd=tmp_path,
            on_launcher_death=signal.SIGKILL,
            **more,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_a_record_finds_its_process(tmp_path, start):
    record = PidFile(tmp_path / "pid")
    assert record.read() is None
    process = start(SLEEP)
    record.write(process.pid)
    assert record.read() == process.pid
    process.kill()
    process.wait()
    assert record.read() is None


def test_a_record_does_not_match_another_process_with_the_same_pid(tmp_path, start):
    record = PidFile(tmp_path / "pid")
    process = start(SLEEP)
    record.path.write_text(json.dumps({"pid": process.pid, "started_at": "some boot/12345"}))
    assert record.read() is None
    assert not record.end_leftover(signal.SIGTERM, grace=1)
    assert process.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "17", '{"pid": "x"}', '{"pid": 1}', '{"pid": 1, "started_at": null}'])
def test_a_damaged_record_is_ignored(tmp_path, text):
    (tmp_path / "pid").write_text(text)
    assert PidFile(tmp_path / "pid").read() is None


def test_a_leftover_process_is_ended_and_its_record_removed(tmp_path, start):
    record = PidFile(tmp_path / "pid")
    process = start(SLEEP)
    record.write(process.pid)
    assert record.end_leftover(signal.SIGTERM, grace=60)
    assert process.wait(60) == -signal.SIGTERM
    assert not record.path.exists()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path, start):
    process = start(STUBBORN)
    assert wait_until(lambda: "up" in tail(tmp_path / "log"), seconds=60)
    assert not stop_process(process, signal.SIGTERM, grace=0.3)
    assert process.returncode == -signal.SIGKILL


def test_kill_tree_kills_the_children_too(tmp_path, start):
    process = start(["sh", "-c", "sleep 600 & echo $! > child; wait"])
    assert wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip(), seconds=60)
    child = int((tmp_path / "child").read_text())
    kill_tree(process.pid)
    process.wait(60)
    assert started_at(child) is None


def test_a_child_ends_with_its_launcher(tmp_path):
    """Even if the launcher is killed with SIGKILL."""
    script = (
        "import os, signal, time\n"
        "from pathlib import Path\n"
        "from deploy.local.process import spawn\n"
        f"p = spawn({SLEEP!r}, env={{}}, log=Path('log'), cwd=Path('.'), on_launcher_death=signal.SIGKILL)\n"
        "Path('child').write_text(str(p.pid))\n"
        "time.sleep(600)\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    launcher = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})
    child = tmp_path / "child"
    assert wait_until(lambda: child.exists() and child.read_text(), seconds=60)
    pid = int(child.read_text())
    assert started_at(pid)
    launcher.kill()
    launcher.wait()
    assert wait_until(lambda: started_at(pid) is None, seconds=60)


def test_the_end_of_a_log(tmp_path):
    log = tmp_path / "log"
    assert "no log" in tail(log)
    log.write_text("one\ntwo\nthree\n")
    assert tail(log, 2) == "two\nthree"


def test_an_orphan_in_the_session_of_the_tree_is_killed_too(tmp_path, start):
    process = start(["sh", "-c", "(sleep 600 & echo $! > orphan); sleep 600"])
    orphan = tmp_path / "orphan"
    assert wait_until(lambda: orphan.exists() and orphan.read_text().strip(), seconds=60)
    pid = int(orphan.read_text())
    assert started_at(pid)
    kill_tree(process.pid)
    assert started_at(pid) is None


FORKS = """
import os, time
print("up", flush=True)
for _ in range(400):
    if not os.fork():
        time.sleep(600)
        os._exit(0)
time.sleep(600)
"""


def test_a_tree_that_grows_while_it_is_killed_is_killed_completely(tmp_path, start):
    def of_the_tree():
        for pid in pids():
            with contextlib.suppress(OSError):
                if str(tmp_path).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    yield pid

    process = start([sys.executable, "-c", FORKS, str(tmp_path)])
    try:
        assert wait_until(lambda: len(list(of_the_tree())) > 5, seconds=60)
        kill_tree(process.pid)
        process.wait()
        assert list(of_the_tree()) == []
    finally:
        for pid in of_the_tree():
            os.kill(pid, signal.SIGKILL)
