"""Clients that read or write slowly, or send bodies that are expensive to refuse: `slow_clients URL KIND NUMBER`.

It runs in a process of its own, prints "ready" when every client has connected once, and ends at the end of its
standard input. Its last line is a JSON object with what the clients have seen.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from contextlib import suppress
from urllib.parse import urlsplit

PAUSE_SECONDS = 1.0
RECONNECT_SECONDS = 0.5
READ_BYTES = 64 * 1024
LARGEST_PAGE = "/docs/swagger-ui.js"
CONNECT_APART_SECONDS = 0.005
UNKNOWN_FIELDS = 4000

HEAD = b"GET /products HTTP/1.1\r\nHost: x\r\nX-Slow: "
BODY = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
PAGE = f"GET {LARGEST_PAGE} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def _login():
    body = json.dumps({"email": "a@example.com", "password": "x" * 10} | dict.fromkeys(map(str, range(UNKNOWN_FIELDS))))
    head = f"POST /users/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n{body}".encode()


LOGIN = _login()


async def write_slowly(reader, writer, beginning, counts):
    """Send a byte of the head or of the body every second."""
    writer.write(beginning)
    while not reader.at_eof():
        await asyncio.sleep(PAUSE_SECONDS)
        writer.write(b"x")
        await writer.drain()
        counts["bytes written"] += 1


async def read_slowly(reader, writer, _beginning, counts):
    """Ask for the largest page, and read 64 KiB of it every second."""
    writer.write(PAGE)
    while data := await reader.read(READ_BYTES):
        counts["bytes read"] += len(data)
        await asyncio.sleep(PAUSE_SECONDS)


async def log_in_badly(reader, writer, _beginning, counts):
    """Send one login with thousands of unknown fields, and read its response."""
    writer.write(LOGIN)
    await writer.drain()
    status = (await reader.readline()).split(b" ")[1:2]
    counts[f"responses {status[0].decode() if status else 'none'}"] += 1
    await asyncio.sleep(PAUSE_SECONDS)


KINDS = {
    "heads": (write_slowly, HEAD),
    "bodies": (write_slowly, BODY),
    "readers": (read_slowly, b""),
    "logins": (log_in_badly, b""),
}


async def client(address, kind, counts, first_try):
    """One client, which connects again whenever its connection has ended."""
    behave, beginning = KINDS[kind]
    while True:
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=READ_BYTES)
        except OSError:
            counts["refused"] += 1
            first_try.set()
            await asyncio.sleep(RECONNECT_SECONDS)
            continue
        counts["connected"] += 1
        first_try.set()
        with suppress(OSError, ValueError):
            await behave(reader, writer, beginning, counts)
        writer.transport.abort()
        counts["ended"] += 1
        await asyncio.sleep(RECONNECT_SECONDS)


async def main(url, kind, number):
    """Run the clients until the standard input ends."""
    address, counts = urlsplit(url), Counter()
    tries, tasks = [asyncio.Event() for _ in range(number)], []
    for first_try in tries:
        tasks.append(asyncio.create_task(client(address, kind, counts, first_try)))
        await asyncio.sleep(CONNECT_APART_SECONDS)  # real clients do not connect all at once
    await asyncio.wait([asyncio.create_task(one.wait()) for one in tries], timeout=20)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    with suppress(OSError):
        os.setsid()  # some kernels share processors by session: real clients would not run on this machine
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
