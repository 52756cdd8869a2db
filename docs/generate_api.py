"""Writes the description of the API to files: `make docs`, or `python -m docs.generate_api`.

openapi.json is the response of GET /openapi.json in production (elsewhere it also names the demo accounts). api.http
has every request for the HTTP client of an editor. With `--release`, also openapi-released.json: the API of the
release, with which tests compare later versions.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet warns about its maintenance state at every import
    from docs.generate_http_file import requests
    from extensions.http.openapi.document import document
    from gateway.routes.docs import INFO
    from gateway.service import GatewayService

HERE = Path(__file__).resolve().parent
RELEASED = HERE / "openapi-released.json"


def generate() -> dict[str, str]:
    """Return the text of every generated file by its path below docs."""
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
