"""The faults of the proxies: what a faulty link does with the bytes that pass it.

A class here is a kind of fault, named by its class in lower case. proxy_process.py calls `begin` when the fault starts,
`on_data` for every piece of data, and `end` when it heals.
"""

import asyncio
import random
import re

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"  # the simple query that psycopg2 sends; no other message contains these bytes
# A frame of method basic.ack (60, 80): channel, size 13, tag, bit, end. Bodies are JSON, without control bytes.
CONFIRM = re.compile(rb"\x01..\x00\x00\x00\x0d\x00\x3c\x00\x50.{8}[\x00\x01]\xce", re.DOTALL)


class Fault:
    """How a faulty link treats bytes."""

    def __init__(self, link):
        self.link, self.hits = link, 0

    def begin(self):
        pass

    def holds_close(self, side):
        """Whether the end of the connection at this side is held back as well."""
        return False

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
    """Forward everything `seconds` later, in each direction, and a random part of `jitter` seconds later than that."""

    def __init__(self, link, seconds, jitter=0.0):
        super().__init__(link)
        self.seconds, self.jitter = seconds, jitter
        self.chance, self.loop = random.Random(0), asyncio.get_running_loop()

    def on_data(self, side, data):
        self.hits += 1
        self.forward_at(self.loop.time() + self.seconds + self.jitter * self.chance.random(), side, data)

    def forward_at(self, due, side, data):
        """Forward the data then, or after the data before it: TCP keeps the order of the bytes."""
        side.hold(data, due)
        self.loop.call_at(due, side.release, due)


class Throttle(Delay):
    """Forward at most `rate` bytes per second in each direction, all connections of the link together."""

    def __init__(self, link, rate):
        super().__init__(link, 0.0)
        self.rate, self.free_at = rate, {True: 0.0, False: 0.0}

    def on_data(self, side, data):
        self.hits += 1
        begins = max(self.loop.time(), self.free_at[side.is_server])
        self.free_at[side.is_server] = begins + len(data) / self.rate
        self.forward_at(self.free_at[side.is_server], side, data)


class Stall(Fault):
    """Accept connections, but forward nothing until the fault ends; then forward everything."""

    def holds_close(self, side):
        return True

    def on_data(self, side, data):
        self.hits += 1
        side.hold(data)


class Silence(Fault):
    """Forward nothing that one end sends until the fault ends, then everything. The other direction works."""

    def __init__(self, link, from_server):
        super().__init__(link)
        self.from_server = from_server

    def holds_close(self, side):
        return side.is_server is self.from_server

    def on_data(self, side, data):
        if side.is_server is not self.from_server:
            side.other.write(data)
            return
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
    kind.__name__.lower(): kind
    for kind in (Cut, Delay, Throttle, Stall, Silence, Freeze, Refuse, LostReply, LostCommit, LostConfirm)
}
