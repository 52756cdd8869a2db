"""The examples of the documentation: every command of docs/api.md, the Python client, and the steps on /docs.

Each command is run, and its output must be the output that the document shows.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support import TEST_TIMEOUT_SECONDS, eventually

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
EXAMPLES = {"js", "http", "python"}  # which are not run here
END = "-- end of block --"
SECONDS = 900  # on a slow machine; normally a few


def steps():
    """Return [commands, shown output] for each block of docs/api.md; None if the document shows no output."""
    found = []
    for kind, text in BLOCK.findall((ROOT / "docs/api.md").read_text()):
        if kind in EXAMPLES:
            continue
        if kind == "sh":
            found.append([text, None])
        else:
            assert found[-1][1] is None, f"two outputs of one block:\n{text}"
            found[-1][1] = text
    return found


def matches(shown, printed):
    """Compare the shown output with the printed one. The sign … matches any text within a line."""
    return re.fullmatch(".*?".join(re.escape(part) for part in shown.split("…")), printed)


@pytest.fixture(scope="module")
def environment(running):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
    return {**clean, "GATEWAY_URL": running.url}


def run(environment, folder, *command):
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_every_command_prints_the_shown_output(environment, tmp_path):
    """All commands run in one shell, in a folder without the file var/env of `make run`."""
    script = "".join(f"{commands}\necho '{END}'\n" for commands, _ in steps())
    done = run(environment, tmp_path, "bash", "-euo", "pipefail", "-c", script)
    printed = done.stdout.split(f"{END}\n")
    for (commands, shown), output in zip(steps(), printed, strict=False):
        same = matches(shown or "", output if output.endswith("\n") or not output else output + "\n")
        assert same, f"\n{commands}\nprints\n{output}\nand not\n{shown}\n{done.stderr}"
    assert (done.returncode, done.stderr) == (0, "")
    assert len(printed) == len(steps()) + 1


def test_the_document_covers_an_order_from_registration_to_delivery():
    text = " ".join(commands for commands, _ in steps())
    for path in ("/users/register", "/products", "/orders", "/timeline", "/ship", "/deliver", "/users/logout"):
        assert path in text


def test_the_python_client_works(environment):
    done = run(environment, ROOT, sys.executable, "docs/examples/shop_client.py", environment["GATEWAY_URL"])
    assert (done.returncode, done.stderr) == (0, "")
    registered, ordered, decided, refused = done.stdout.splitlines()
    assert re.fullmatch(r"registered \w+@example\.com", registered)
    assert ordered == "ordered 2 x Turkish Coffee, 250 g for 299.80 TRY"
    assert decided.startswith("the order is CONFIRMED, its payment ")
    assert refused == "VALIDATION_ERROR [{'field': 'items[0].quantity', 'message': 'must be at least 1'}]"


def test_the_five_steps_on_the_docs_page_deliver_an_order(running):
    """All paths, bodies and passwords of the requests are read from the page."""
    with httpx.Client(base_url=running.url, timeout=TEST_TIMEOUT_SECONDS, verify=False) as http:
        text = http.get("/openapi.json").json()["info"]["description"].partition("### A first order")[2]
        emails, (password,), (sku,) = (re.findall(f"`({one})`", text) for one in (r"\S+@\S+", r"\S+!", r"TEA-\S+"))
        _, find, place, look, deliver = re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]

        def log_in(email):
            response = http.post("/users/login", json={"email": email, "password": password}).raise_for_status()
            http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

        def follow(step, order_id="", **request):
            """Send the requests that a step names. Returns the last response."""
            for method, path in re.findall(r"`(GET|POST) (/\S*)`", step):
                response = http.request(method, path.format(order_id=order_id), **request).raise_for_status().json()
            return response

        customer, administrator = emails
        log_in(customer)
        product = follow(find, params={"sku": sku})["items"][0]["id"]
        (body,) = re.findall(r"`(\{.*\})`", place)
        order = follow(place, json=json.loads(body.replace("...", product)))["id"]
        eventually(lambda: f"`{follow(look, order)['status']}`" in look)
        log_in(administrator)
        assert follow(deliver, order)["status"] == "DELIVERED"
