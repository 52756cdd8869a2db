"""docs/api.md and its example are true: every command is run, and prints what the paper says. So is the page /docs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support import eventually

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


def run(environment, folder, *command):
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_every_command_prints_what_the_paper_says(environment, tmp_path):
    """One shell for all of them, as a person would have it; far from a var/env of `make run`."""
    script = "".join(f"{commands}\necho '{END}'\n" for commands, _ in steps())
    done = run(environment, tmp_path, "bash", "-euo", "pipefail", "-c", script)
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
    done = run(environment, ROOT, sys.executable, "docs/examples/shop_client.py", environment["GATEWAY_URL"])
    assert (done.returncode, done.stderr) == (0, "")
    registered, ordered, decided, refused = done.stdout.splitlines()
    assert re.fullmatch(r"registered \w+@example\.com", registered)
    assert ordered == "ordered 2 x Turkish Coffee, 250 g for 299.80 TRY"
    assert decided.startswith("the order is CONFIRMED, its payment ")
    assert refused == "VALIDATION_ERROR [{'field': 'items[0].quantity', 'message': 'must be at least 1'}]"


def test_a_stranger_with_the_page_alone_gets_an_order_delivered(running):
    """Its five steps are followed by one who knows nothing else, not even the password."""
    with httpx.Client(base_url=running.url, timeout=15) as http:
        text = http.get("/openapi.json").json()["info"]["description"].partition("### A first order")[2]
        emails, (password,), (sku,) = (re.findall(f"`({one})`", text) for one in (r"\S+@\S+", r"\S+!", r"TEA-\S+"))
        _, find, place, look, deliver = re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]

        def log_in(email):
            answer = http.post("/users/login", json={"email": email, "password": password}).raise_for_status()
            http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

        def follow(step, order_id="", **request):
            """The last answer to the calls that a step names."""
            for method, path in re.findall(r"`(GET|POST) (/\S*)`", step):
                answer = http.request(method, path.format(order_id=order_id), **request).raise_for_status().json()
            return answer

        customer, administrator = emails
        log_in(customer)
        product = follow(find, params={"sku": sku})["items"][0]["id"]
        (body,) = re.findall(r"`(\{.*\})`", place)
        order = follow(place, json=json.loads(body.replace("...", product)))["id"]
        eventually(lambda: f"`{follow(look, order)['status']}`" in look)
        log_in(administrator)
        assert follow(deliver, order)["status"] == "DELIVERED"
