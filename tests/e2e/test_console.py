"""The console in a real browser. The stories are in tests/browser; they run in one process of their own.

Playwright does not work in a green process, as this one is. The process of the stories asks this one to stop and start
services.
"""

import ast
import json
import os
import sys
from xml.etree import ElementTree as ET

import amqp
import eventlet
import pytest
from eventlet.green import subprocess

from deploy.local import install, node_packages
from deploy.local.process import StartError
from tests.e2e.conftest import READY_SECONDS, ROOT
from tests.support import connect

FOLDER = ROOT / "tests/browser"
SECONDS = 2700  # it takes 200 on a machine that does nothing else


def stories():
    """The names of all tests of the stories, as file and function."""
    for path in sorted(FOLDER.glob("story_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield path.stem, node.name


@pytest.fixture(scope="module")
def chromium(servers):
    """The browser's program."""
    try:
        install.ensure({"chromium"}, log=servers.data / "log/apt.log", say=print)
    except StartError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the console is NOT tested: {error}")
    return install.chromium()


def publish(queue, message):
    """Publish a message as a broken producer would: `message` has its body and its properties."""
    body = message.pop("body")
    properties = {"content_type": "application/json", "delivery_mode": 2, **message}
    with connect() as connection:
        connection.channel().basic_publish_confirm(amqp.Message(body, **properties), "", queue)


def serve_control(suite, listener):
    """Stop and start services, and publish messages, for the process of the stories.

    One command a connection, answered when it is done.
    """
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as lines:
            command, service, *rest = lines.readline().strip().split(" ", 2)
            if command == "publish":
                publish(service, json.loads(rest[0]))
            elif command == "stop":
                suite.stop_service(service)
            else:
                suite.start_service(service)
                suite.wait_ready(READY_SECONDS)
            lines.write("done\n")
            lines.flush()


@pytest.fixture(scope="module")
def results(running, chromium):
    """The result of each story: (file, function) -> what went wrong, empty for a success."""
    node_packages.ensure(node_packages.ROOT / "console", node_packages.ROOT / "console")
    folder = ROOT / "var/console"  # kept after the run: the report and the screenshots are for people, too
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "stories.xml"
    report.unlink(missing_ok=True)
    listener = eventlet.listen(("127.0.0.1", 0))
    controller = eventlet.spawn(serve_control, running.suite, listener)
    settings = {
        "SHOP_URL": running.url,
        "CONTROL_ADDRESS": f"127.0.0.1:{listener.getsockname()[1]}",
        "CHROMIUM": str(chromium),
        "PICTURES": str(folder / "pictures"),
    }
    command = [sys.executable, "-m", "pytest", "-c", FOLDER / "pytest.ini", "--rootdir", FOLDER, "--confcutdir", FOLDER]
    done = subprocess.run(
        [*map(str, command), "--durations", "5", "--junitxml", str(report), str(FOLDER)],
        env={**os.environ, **settings, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    controller.kill()
    listener.close()
    print(done.stdout)
    assert report.exists(), done.stdout
    return read_results(report)


def read_results(report):
    found = {}
    for case in ET.parse(report).iter("testcase"):
        key = case.get("classname").rpartition(".")[2], case.get("name").partition("[")[0]
        problems = [each.text or "" for each in case if each.tag in {"failure", "error", "skipped"}]
        found.setdefault(key, []).extend(problems)
    return found


@pytest.mark.parametrize(("file", "story"), list(stories()))
def test_story(results, shop, file, story):
    assert (file, story) in results, "it did not run"
    assert not results[file, story], "\n".join(results[file, story])
