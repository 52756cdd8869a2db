"""docs/guides/adding-a-consumer.md, followed in a copy of the project: the service of examples/loyalty works there."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.services import SERVICES
from qa.remedies.__main__ import copy_tree

ROOT = Path(__file__).parent.parent.parent
EXAMPLE, GUIDE = ROOT / "examples/loyalty", ROOT / "docs/guides/adding-a-consumer.md"
MAX_LINES = 60
# What shows that the new service is complete, besides its own tests.
CHECKS = (
    "tests/service/loyalty",
    "tests/unit/test_rpc_interfaces.py",
    "tests/unit/test_service_modules.py",
    "tests/unit/contracts",
)
SECONDS = 900
OURS = re.compile(r"_UR[IL]$|_FILE$|^(TEST_RUN_FOLDER|TEST_WORKER|ORDER_SUITE_TEST_DATA|PYTHONPATH)$")


def lines_of_code(path):
    """The lines of the statements in a module, without imports, docstrings and blank lines."""
    lines = set()
    for node in ast.walk(ast.parse(path.read_text())):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not is_text and not isinstance(node, ast.Import | ast.ImportFrom):
            body = getattr(node, "body", None)
            lines.update(range(node.lineno, (body[0].lineno if body else node.end_lineno + 1)))
    return len({line for line in lines if path.read_text().splitlines()[line - 1].strip()})


def test_the_example_is_short():
    modules = [path for path in EXAMPLE.rglob("*.py") if "tests" not in path.parts]
    assert len(modules) >= 5
    assert sum(map(lines_of_code, modules)) < MAX_LINES


def edits():
    """Yield (file, old text, new text) for each edit that the guide asks for."""
    (block,) = re.findall(r"^```diff\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    for part in re.split(r"^--- ", block, flags=re.MULTILINE)[1:]:
        file, _, hunks = part.partition("\n")
        for hunk in re.split(r"^@@\n", hunks, flags=re.MULTILINE):
            lines = hunk.splitlines(keepends=True)
            yield file, *("".join(line[1:] for line in lines if line[0] in f" {sign}") for sign in "-+")


def test_the_guide_changes_no_other_service():
    assert {file.partition("/")[0] for file, _, _ in edits()} == {"contracts"}
    assert not {path.name for path in EXAMPLE.iterdir()} & {*SERVICES, "gateway", "extensions"}


@pytest.fixture
def project(tmp_path):
    """A copy of the project with the new service, made as the guide says."""
    folder = tmp_path / "project"
    folder.mkdir()
    copy_tree(folder)
    assert "\ncp -r examples/loyalty/. .\n" in GUIDE.read_text()
    shutil.copytree(folder / "examples/loyalty", folder, dirs_exist_ok=True)
    for file, old, new in edits():
        text = (folder / file).read_text()
        assert text.count(old) == 1, f"{file} does not have the lines of the guide"
        (folder / file).write_text(text.replace(old, new))
    return folder


def test_a_reader_who_follows_the_guide_has_a_working_service(project):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *CHECKS]
    # It starts servers of its own: those of this run have no database of the new service.
    environment = {name: value for name, value in os.environ.items() if not OURS.search(name)}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
