"""A load generator: concurrent POST /orders over keep-alive connections, in closed and in open loops."""

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import urlsplit
from uuid import uuid4

MAX_CONNECTIONS = 1500
RESPONSE_SECONDS = 10.0


@dataclass
class Response:
    """The response to one request. `due` is the scheduled time (time.time()), `seconds` the latency from then on."""

    due: float
    seconds: float
    status: int  # 0: no response
    order_id: str | None = None
    retry_after: bool = False
    detail: str = ""


class Generator:
    """POSTs orders over keep-alive connections. It uses plain asyncio sockets, which take little CPU from the suite."""

    def __init__(self, url, token, bodies):
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._idle = deque()
        self._head = (
            f"POST /orders HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\n"
        )
        self._bodies = cycle([json.dumps(body).encode() for body in bodies])
        self._under_way = set()
        self.not_sent = 0
        self.responses = []

    async def closed_loop(self, clients, seconds, pause=0.1):
        """Keep `clients` requests in flight for `seconds`. A client that is refused waits for `pause` seconds."""
        end = time.time() + seconds

        async def client():
            while time.time() < end:
                if (await self._post(time.time())).status != 201:
                    await asyncio.sleep(pause)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open_loop(self, rate, seconds):
        """Send a request every 1/rate seconds for `seconds`; returns (began, ended) without waiting for responses."""
        began = time.time()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (pause := due - time.time()) > 0:
                await asyncio.sleep(pause)
            if len(self._under_way) >= MAX_CONNECTIONS:
                self.not_sent += 1
                continue
            task = asyncio.create_task(self._post(due))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return began, began + seconds

    async def last_response(self):
        """Wait until every request has its response."""
        await asyncio.gather(*self._under_way)

    async def _post(self, due):
        try:
            async with asyncio.timeout(RESPONSE_SECONDS):
                response = await self._exchange(due)
        except (OSError, EOFError, TimeoutError) as error:
            response = Response(due, time.time() - due, 0, detail=type(error).__name__)
        self.responses.append(response)
        return response

    async def _exchange(self, due):
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        try:
            body = next(self._bodies)
            head = f"{self._head}Idempotency-Key: {uuid4()}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            content = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            writer.close()
            raise
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        status, body = int(status_line.split()[1]), json.loads(content)
        seconds = time.time() - due
        return Response(due, seconds, status, body.get("id"), "retry-after" in headers, body.get("detail", ""))


def percentile(values, share):
    """Return a percentile in the values' unit; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
