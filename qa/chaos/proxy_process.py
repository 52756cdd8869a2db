"""The process in which the proxies of proxy.py run, controlled by lines of JSON.

It reads `{"links": [...], "kind": ..., "values": {...}}` (inject), `{"links": [...]}` (heal) and `{"links": [...],
"count": true}` from its standard input, prints one line for each, and ends at the end of the input.
"""

import asyncio
import json
import re
import resource
import socket
import struct
import sys
from collections import deque

MOST_HELD = 1024 * 1024  # bytes held back per direction of a connection; above it, reading from the sender pauses
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"  # the simple query that psycopg2 sends; no other message contains these bytes
# A frame of method basic.ack (60, 80): channel, size 13, tag, bit, end. Bodies are JSON, without control bytes.
CONFIRM = re.compile(rb"\x01..\x00\x00\x00\x0d\x00\x3c\x00\x50.{8}[\x00\x01]\xce", re.DOTALL)


class Side(asyncio.Protocol):
    """One end of a connection. It forwards what it receives to the other end."""

    def __init__(self, link, *, is_server):
        self.link, self.is_server = link, is_server
        self.transport = self.other = None
        self.held = deque()  # (due time or None, bytes) that a fault holds back
        self.held_bytes = self.received = 0
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
        if self.held or self.frozen or (self.link.fault is not None and self.link.fault.holds_close):
            self.hold(b"", self.held[-1][0] if self.held else None)  # close after the held bytes
        else:
            self.other.close()

    def pause_writing(self):
        _if_open(self.other, "pause_reading")

    def resume_writing(self):
        _if_open(self.other, "resume_reading")

    # called by faults

    def write(self, data):
        if self.transport is not None and not self.is_lost:
            self.transport.write(data)

    def hold(self, data, due=None):
        """Hold bytes back. Empty bytes mean the end of the connection."""
        self.held.append((due, data))
        self.held_bytes += len(data)
        if self.held_bytes > MOST_HELD:
            _if_open(self, "pause_reading")

    def release(self, now=None):
        """Forward the held bytes: all of them, or those due at `now`."""
        while self.held and (now is None or (self.held[0][0] is not None and self.held[0][0] <= now)):
            _due, data = self.held.popleft()
            self.held_bytes -= len(data)
            if data:
                self.other.write(data)
            else:
                self.other.close()
        if self.held_bytes <= MOST_HELD:
            _if_open(self, "resume_reading")

    def close(self):
        """Close the connection after pending writes."""
        if self.transport is not None:
            self.transport.close()

    def reset(self):
        """Break the connection at both ends with a RST."""
        for side in (self, self.other):
            side.held.clear()
            side.frozen = False
            if side.transport is not None and not side.transport.is_closing():
                linger = struct.pack("ii", 1, 0)
                side.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                side.transport.abort()


def _if_open(side, method):
    if side.transport is not None and not side.transport.is_closing():
        getattr(side.transport, method)()


class Fault:
    """How a faulty link treats bytes. Every class below is a kind of fault, named by its class in lower case."""

    holds_close = False  # is the end of a connection held back as well?

    def __init__(self, link):
        self.link, self.hits = link, 0

    def begin(self):
        pass

    def on_data(self, side, data):
        side.other.write(data)

    def end(self):
        """End the fault, and forward the held bytes."""
        for side in list(self.link.sides):
            side.release()


class Cut(Fault):
    """Close connections after `after` more bytes from the server or from the client, with a FIN or a RST."""

    def __init__(self, link, after, from_server, reset):
        super().__init__(link)
        self.after, self.from_server, self.reset = after, from_server, reset

    def begin(self):
        for side in self.link.sides:
            side.received = 0

    def on_data(self, side, data):
        left = self.after - side.received
        side.received += len(data)
        if side.is_server is not self.from_server or len(data) < left:
            side.other.write(data)
            return
        self.hits += 1
        side.other.write(data[: max(left, 0)])
        if self.reset:
            side.reset()
        else:
            side.close()
            side.other.close()


class Delay(Fault):
    """Forward everything `seconds` later."""

    def __init__(self, link, seconds):
        super().__init__(link)
        self.seconds, self.loop = seconds, asyncio.get_running_loop()

    def on_data(self, side, data):
        self.hits += 1
        due = self.loop.time() + self.seconds
        side.hold(data, due)
        self.loop.call_at(due, side.release, due)


class Stall(Fault):
    """Accept connections, but forward nothing until the fault ends; then forward everything."""

    holds_close = True

    def on_data(self, side, data):
        self.hits += 1
        side.hold(data)


class Freeze(Fault):
    """Make the existing connections half-open: neither end gets data or an error. New connections work."""

    def begin(self):
        self.frozen = list(self.link.sides)
        for side in self.frozen:
            side.frozen = True
        self.hits = len(self.frozen) // 2

    def end(self):
        """Reset the connections, as a restarted machine at the other end would."""
        for side in self.frozen:
            side.reset()


class Refuse(Fault):
    """Reset connections, and refuse new ones."""

    def begin(self):
        self.link.close()
        self.hits = len(self.link.sides) // 2
        for side in list(self.link.sides):
            side.reset()

    def end(self):
        self.link.open()


class LostReply(Fault):
    """`count` times: PostgreSQL executes a COMMIT, but its reply is lost and the connection is reset."""

    def __init__(self, link, count):
        super().__init__(link)
        self.count = count

    def on_data(self, side, data):
        if side.muted:
            side.reset()
            return
        if not side.is_server and self.hits < self.count and data.endswith(COMMIT):
            self.hits += 1
            side.other.muted = True
        side.other.write(data)


class LostCommit(LostReply):
    """`count` times: a COMMIT is lost and the connection is reset, so PostgreSQL rolls back."""

    def on_data(self, side, data):
        if not side.is_server and self.hits < self.count and data.endswith(COMMIT):
            self.hits += 1
            side.reset()
            return
        side.other.write(data)


class LostConfirm(Fault):
    """`count` times: RabbitMQ accepts a message, but its confirm is lost and the connection is reset."""

    def __init__(self, link, count):
        super().__init__(link)
        self.count = count

    def on_data(self, side, data):
        confirm = CONFIRM.search(data) if side.is_server and self.hits < self.count else None
        if confirm is None:
            side.other.write(data)
            return
        self.hits += 1
        side.other.write(data[: confirm.start()])
        side.reset()


KINDS = {
    kind.__name__.lower(): kind for kind in (Cut, Delay, Stall, Freeze, Refuse, LostReply, LostCommit, LostConfirm)
}


class Link:
    """One listening port and the server behind it."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.fault, self.sides = None, set()
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
                client, _address = await loop.sock_accept(listening)
                _keep(asyncio.ensure_future(self._connect(client)))

    async def _connect(self, accepted):
        loop = asyncio.get_running_loop()
        client, server = Side(self, is_server=False), Side(self, is_server=True)
        client.other, server.other = server, client
        try:
            await loop.create_connection(lambda: server, *self.upstream)
        except OSError:
            accepted.close()
            return
        self.sides = {side for side in self.sides if not (side.is_lost and side.other.is_lost)} | {client, server}
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
