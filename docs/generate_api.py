"""Writes what is known of the API to files: `make docs`, or `python -m docs.generate_api`.

openapi.json is what GET /openapi.json answers in production (elsewhere it tells of the demo accounts too), api.http
every request of it for an editor. With `--release`, also openapi-released.json: what clients rely on from now on, and
what tests compare the API with until the next release.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet announces its end at every import
    from docs.api_requests import requests
    from extensions.http.openapi.document import document
    from gateway.routes.docs import INFO
    from gateway.service import GatewayService

HERE = Path(__file__).resolve().parent
RELEASED = HERE / "openapi-released.json"


def generate() -> dict[str, str]:
    """Return every generated file: its path below docs, and its text."""
    told = document(GatewayService, INFO)
    return {"openapi.json": _text(told), "api.http": requests(told)}


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """The command line."""
    files = generate()
    for name, text in files.items():
        (HERE / name).write_text(text)
    if arguments == ["--release"]:
        RELEASED.write_text(files["openapi.json"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
