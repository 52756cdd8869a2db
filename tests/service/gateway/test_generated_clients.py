"""Clients that are generated from the OpenAPI document: made without warnings, with typed errors, and of use.

tests/clients has the programs that walk with them from registration to a delivered order. The generators are installed
into var/clients at their first use.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.clients import install
from tests.service.gateway.responses import PASSWORD
from tests.support import TEST_TIMEOUT_SECONDS

CLIENTS = install.HERE


@pytest.fixture(scope="module")
def tools():
    try:
        return install.ensure()
    except install.NotInstalled as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"NO TEST OF GENERATED CLIENTS, because the generators cannot be installed: {error}")


@pytest.fixture
def described(api, tmp_path):
    """The file with the document, as this gateway serves it."""
    path = tmp_path / "openapi.json"
    path.write_bytes(api.get("/openapi.json").content)
    return path


@pytest.fixture
def walk(api, admin):
    """The environment variables of a program that walks."""
    return {
        "GATEWAY_URL": str(api.base_url).rstrip("/"),
        "ADMIN": "boss@example.com",
        "PASSWORD": PASSWORD,
        "SECONDS": str(TEST_TIMEOUT_SECONDS),
    }


def test_redocly_and_spectral_find_no_error(tools):
    described = install.ROOT / "docs/openapi.json"
    told = tools.node_tool("redocly", "lint", "--extends", "recommended", described, env={"REDOCLY_TELEMETRY": "off"})
    assert "Your API description is valid" in told
    arguments = ("--ruleset", CLIENTS / "spectral.yaml", "--format", "json", "--quiet", described)
    found = json.loads(tools.node_tool("spectral", "lint", *arguments))
    assert [f"{one['code']}: {one['message']}" for one in found] == []


def test_a_python_client(tools, described, walk, tmp_path):
    config = ("--meta", "none", "--config", CLIENTS / "openapi-python-client.yaml", "--output-path", tmp_path / "shop")
    told = tools.run(tools.python, "-m", "openapi_python_client", "generate", "--path", described, *config)
    assert "Warning" not in told, told
    told = tools.run(tools.python, CLIENTS / "walk.py", env={**walk, "PYTHONPATH": str(tmp_path)})
    assert told.startswith("delivered ")


def test_a_typescript_client(tools, described, walk):
    # Node.js and tsc find packages in node_modules of a parent folder.
    with tempfile.TemporaryDirectory(prefix="walk-", dir=tools.packages) as name:
        folder = Path(name)
        for file in ("walk.ts", "tsconfig.json"):
            shutil.copy(CLIENTS / file, folder)
        # Without the option, fields that have a default must be sent.
        options = ("--default-non-nullable", "false", "--output", folder / "shop.d.ts")
        tools.node_tool("openapi-typescript", described, *options)
        tools.node_tool("tsc", "--project", folder)
        told = tools.run(tools.node, folder / "walk.ts", env=walk)
    assert told.startswith("delivered ")
