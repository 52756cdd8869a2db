"""The process in which the proxies of proxy.py run, controlled by lines of JSON.

It reads `{"links": [...], "kind": ..., "values": {...}}` (inject), `{"links": [...]}` (heal) and `{"links": [...],
"count": true}` from its standard input, prints one line for each, and ends at the end of the input.

Its own resources are bounded: the connections of a link, the time to connect to the server behind it, and the bytes and
pieces that a connection holds back. Beyond them it closes a new connection, or stops reading from the sender.
"""

import asyncio
import json
import resource
import socket
import struct
import sys
from collections import deque

from qa.chaos.proxy_faults import KINDS

MOST_HELD = 1024 * 1024  # bytes held back per direction of a connection
MOST_PIECES = 10_000  # pieces of data held back per direction; each one has a timer
MOST_CONNECTIONS = 1000  # of one link
CONNECT_SECONDS = 10.0
ACCEPT_PAUSE_SECONDS = 0.1  # after a failure, such as too many open files


class Side(asyncio.Protocol):
    """One end of a connection. It forwards what it receives to the other end."""

    def __init__(self, link, *, is_server):
        self.link, self.is_server = link, is_server
        self.transport = self.other = None
        self.held = deque()  # (due time or None, bytes) that a fault holds back
        self.held_bytes = self.received = 0
        self.is_full = False  # what is written here is not read by its receiver
        self.muted = False  # drop what is received here
        self.frozen = False  # forward nothing, and report no error
        self.is_lost = False

    # called by asyncio

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data):
        if self.link.fault is None and not self.held and not self.frozen:
            self.other.write(data)
        elif not self.frozen and self.link.fault is not None:
            self.link.fault.on_data(self, data)
        else:
            self.hold(data)

    def connection_lost(self, _error):
        self.is_lost = True
        if self.held or self.frozen or (self.link.fault is not None and self.link.fault.holds_close(self)):
            self.hold(b"", self.held[-1][0] if self.held else None)  # close after the held bytes
        else:
            self.other.close()

    def pause_writing(self):
        self.is_full = True
        self.other.update_reading()

    def resume_writing(self):
        self.is_full = False
        self.other.update_reading()

    # called by faults

    def write(self, data):
        if self.transport is not None and not self.is_lost:
            self.transport.write(data)

    def hold(self, data, due=None):
        """Hold bytes back. Empty bytes mean the end of the connection."""
        self.held.append((due, data))
        self.held_bytes += len(data)
        self.update_reading()

    def release(self, now=None):
        """Forward the held bytes: all of them, or those due at `now`."""
        while self.held and (now is None or (self.held[0][0] is not None and self.held[0][0] <= now)):
            _due, data = self.held.popleft()
            self.held_bytes -= len(data)
            if data:
                self.other.write(data)
            else:
                self.other.close()
        self.update_reading()

    def update_reading(self):
        """Read only while the data that has not reached the other end is within its bounds."""
        too_much = self.other.is_full or self.held_bytes > MOST_HELD or len(self.held) > MOST_PIECES
        if self.transport is not None and not self.transport.is_closing():
            if too_much:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def close(self):
        """Close the connection after pending writes."""
        if self.transport is not None:
            self.transport.close()

    def reset(self):
        """Break the connection at both ends with a RST."""
        for side in (self, self.other):
            side.held.clear()
            side.held_bytes = 0
            side.frozen = False
            if side.transport is not None and not side.transport.is_closing():
                linger = struct.pack("ii", 1, 0)
                side.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                side.transport.abort()


class Link:
    """One listening port and the server behind it."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.fault, self.sides = None, set()
        self.connecting = 0
        self.server = None
        self.latest_hits = 0
        # This socket never listens. It reserves the port while connections are refused.
        self._holder = _bound(0)
        self.port = self._holder.getsockname()[1]

    def open(self):
        listening = _bound(self.port)
        listening.listen(512)
        listening.setblocking(False)
        self.server = asyncio.ensure_future(self._accept(listening))

    def close(self):
        self.server.cancel()

    async def _accept(self, listening):
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    client, _address = await loop.sock_accept(listening)
                except OSError:
                    await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                    continue
                if self.is_full():
                    client.close()
                else:
                    _keep(asyncio.ensure_future(self._connect(client)))

    def is_full(self):
        """Whether the link has as many connections as it may have."""
        self.sides = {side for side in self.sides if not (side.is_lost and side.other.is_lost)}
        return len(self.sides) // 2 + self.connecting >= MOST_CONNECTIONS

    async def _connect(self, accepted):
        loop = asyncio.get_running_loop()
        client, server = Side(self, is_server=False), Side(self, is_server=True)
        client.other, server.other = server, client
        self.connecting += 1
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.create_connection(lambda: server, *self.upstream)
        except OSError:
            accepted.close()
            return
        finally:
            self.connecting -= 1
        self.sides |= {client, server}
        await loop.connect_accepted_socket(lambda: client, accepted)

    def inject(self, kind, values):
        self.heal()
        self.fault = KINDS[kind](self, **values)
        self.fault.begin()

    def heal(self):
        fault, self.fault = self.fault, None
        if fault is not None:
            self.latest_hits = fault.hits
            fault.end()

    @property
    def hits(self):
        return self.fault.hits if self.fault is not None else self.latest_hits


_tasks = set()


def _keep(task):
    """Keep a reference to the task: asyncio keeps only weak ones."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _bound(port):
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def execute(links, order):
    chosen = [links[name] for name in order["links"]]
    if "kind" in order:
        for link in chosen:
            link.inject(order["kind"], order["values"])
    elif not order.get("count"):
        for link in chosen:
            link.heal()
    return {"hits": sum(link.hits for link in chosen)}


async def main(upstreams):
    _soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    links = {name: Link(upstream) for name, upstream in upstreams.items()}
    for link in links.values():
        link.open()
    print(json.dumps({name: link.port for name, link in links.items()}), flush=True)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        try:
            result = execute(links, json.loads(line))
        except Exception as error:  # noqa: BLE001 - reported to the caller
            result = {"error": repr(error)}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
