"""docs/api.md and its example are true: every command is run, and prints what the paper says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
END = "-- end of block --"
SECONDS = 120


def steps():
    """(commands, what they print) in the order of the paper; None where it does not say."""
    found = []
    for kind, text in BLOCK.findall((ROOT / "docs/api.md").read_text()):
        if kind == "sh":
            found.append([text, None])
        else:
            assert found[-1][1] is None, f"two outputs of one block:\n{text}"
            found[-1][1] = text
    return found


def matches(shown, printed):
    """Compare, with … for anything that fits on a line."""
    return re.fullmatch(".*?".join(re.escape(part) for part in shown.split("…")), printed)


@pytest.fixture(scope="module")
def environment(running):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
    return {**clean, "GATEWAY_URL": running.url}


def test_every_command_prints_what_the_paper_says(environment, tmp_path):
    """One shell for all of them, as a person would have it; far from a var/env of `make run`."""
    script = "".join(f"{commands}\necho '{END}'\n" for commands, _ in steps())
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    printed = done.stdout.split(f"{END}\n")
    for (commands, shown), output in zip(steps(), printed, strict=False):
        same = matches(shown or "", output if output.endswith("\n") or not output else output + "\n")
        assert same, f"\n{commands}\nprints\n{output}\nand not\n{shown}\n{done.stderr}"
    assert (done.returncode, done.stderr) == (0, "")
    assert len(printed) == len(steps()) + 1


def test_the_paper_goes_all_the_way():
    text = " ".join(commands for commands, _ in steps())
    for path in ("/users/register", "/products", "/orders", "/timeline", "/ship", "/deliver", "/users/logout"):
        assert path in text


def test_the_example_in_python_works(environment):
    done = subprocess.run(
        [sys.executable, "docs/examples/shop_client.py", environment["GATEWAY_URL"]],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    registered, ordered, decided, refused = done.stdout.splitlines()
    assert re.fullmatch(r"registered \w+@example\.com", registered)
    assert ordered == "ordered 2 x Turkish Coffee, 250 g for 299.80 TRY"
    assert decided.startswith("the order is CONFIRMED, its payment ")
    assert refused == "VALIDATION_ERROR [{'field': 'items[0].quantity', 'message': 'must be at least 1'}]"
