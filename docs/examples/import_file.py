"""Imports a file of products or of stock, and shows the progress: `make import FILE=products.csv`.

    python docs/examples/import_file.py products.csv --mode skip_bad
    python docs/examples/import_file.py stock.csv --path /inventory/import

The file is CSV with a header line, or JSON lines if its name ends with .jsonl or .ndjson. It is sent in pieces, so it
may be larger than the memory. The account is that of IMPORT_EMAIL and IMPORT_PASSWORD, by default the administrator of
the demo. Needs nothing but Python.
"""

import argparse
import http.client
import json
import os
import sys
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

PIECE_BYTES = 64 * 1024
RESPONSE_SECONDS = 60.0
POLL_SECONDS = 0.5
OVER = {"DONE", "REJECTED", "FAILED"}


class Refused(Exception):
    """The gateway refused the file; the text is its problem."""


def connect(url: str) -> http.client.HTTPConnection:
    """Return a connection to the gateway."""
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.netloc, timeout=RESPONSE_SECONDS)


def call(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, headers: Any = None
) -> tuple[int, Any]:
    """Return (status, parsed body) of one request. Raises Refused for a problem."""
    connection.request(method, path, body, headers or {}, encode_chunked=hasattr(body, "__next__"))
    response = connection.getresponse()
    parsed = json.loads(response.read() or b"null")
    if response.status >= 400:
        raise Refused(f"{response.status} {parsed['code']}: {parsed['detail']}")
    return response.status, parsed


def log_in(connection: http.client.HTTPConnection, email: str, password: str) -> dict[str, str]:
    """Return the header of a session."""
    credentials = json.dumps({"email": email, "password": password})
    _, session = call(connection, "POST", "/users/login", credentials, {"Content-Type": "application/json"})
    return {"Authorization": f"Bearer {session['access_token']}"}


def pieces(file: BinaryIO, show: Callable[[str], None]) -> Iterator[bytes]:
    """Yield the content of a file, and show how much was sent."""
    sent = 0
    while piece := file.read(PIECE_BYTES):
        yield piece
        sent += len(piece)
        show(f"sent {sent / 1e6:.1f} MB")


def run(
    url: str,
    path: str,
    file: BinaryIO,
    *,
    mode: str,
    media_type: str,
    account: tuple[str, str],
    show: Callable[[str], None],
) -> dict[str, Any]:
    """Import an open file. Returns the import when it is over."""
    connection = connect(url)
    try:
        session = log_in(connection, *account)
        headers = {"Content-Type": media_type, "Transfer-Encoding": "chunked", "Idempotency-Key": str(uuid.uuid4())}
        _, found = call(connection, "POST", f"{path}?mode={mode}", pieces(file, show), headers | session)
        while found["status"] not in OVER:
            counts = f"{found['staged']} rows valid, {found['failed']} bad, {found['merged']} merged"
            show(f"{found['status'].lower()}: {counts}")
            time.sleep(POLL_SECONDS)
            _, found = call(connection, "GET", f"{path}s/{found['id']}", headers=session)
        return found
    finally:
        connection.close()


def main() -> int:
    """The command line. The exit code is 1 if the import changed nothing because of bad rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--url", default=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--path", default="/products/import")
    parser.add_argument("--mode", choices=("all_or_nothing", "skip_bad"), default="all_or_nothing")
    options = parser.parse_args()
    is_lines = options.file.suffix in {".jsonl", ".ndjson"}
    email = os.environ.get("IMPORT_EMAIL", "admin@example.com")
    account = email, os.environ.get("IMPORT_PASSWORD", "Demo-pass-2026!")
    with options.file.open("rb") as file:
        done = run(
            options.url,
            options.path,
            file,
            mode=options.mode,
            media_type="application/x-ndjson" if is_lines else "text/csv",
            account=account,
            show=lambda text: print(f"\r{text:76}", end="", file=sys.stderr, flush=True),
        )
    print(file=sys.stderr)
    for error in done["errors"]:
        print(f"line {error['line']}: {error['field'] or 'the row'} {error['message']}")
    print(
        f"{done['status']}: "
        + ", ".join(f"{done[name]} {name}" for name in ("created", "updated", "unchanged", "failed"))
    )
    return 0 if done["status"] == "DONE" else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refused as problem:
        sys.exit(str(problem))
