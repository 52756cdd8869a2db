"""A client of server-sent events that connects again after every break, with the id of the last event."""

import json
import socket
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from urllib.parse import urlsplit

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0  # the gateway sends a comment every 15 s
POLL_SECONDS = 0.3
AGAIN_SECONDS = 0.2
HELD_SECONDS = (3.0, 20.0)  # how long the client holds a connection, before it breaks it by itself
BUSY = {401, 429, 503, 504}
RECEIVED_BYTES = 65536


class EventStream:
    """What a client got of one stream, over all of its connections. One thread at a time may follow it.

    `name_of(data)` returns what the stream's events are told apart by, besides their id.
    """

    def __init__(self, user, path, name_of, chance):
        self.path, self.entries = path, []  # (id, name) of every event, in the order of arrival
        self.first_id = self.last_id = None
        self.connections, self.ends, self.gaps, self.unexpected = 0, 0, 0, []
        self.chance, self.lock = chance, threading.Lock()  # held by the thread that follows it
        self._user, self._name_of = user.new_connection(Counter()), name_of
        address = urlsplit(user.url)
        self._address = address.hostname, address.port

    def follow(self, is_over):
        """Read until `is_over()`, which is called every POLL_SECONDS."""
        while not is_over():
            with suppress(OSError, ValueError):  # the connection broke, or its head did
                self._connect(is_over)
            if not is_over():
                time.sleep(AGAIN_SECONDS)

    def _connect(self, is_over):
        """Read one connection until its end."""
        with closing(socket.create_connection(self._address, CONNECT_SECONDS)) as connection:
            connection.sendall(self._request())
            head, rest = self._read_head(connection)
            status = int(head.split(b" ", 2)[1])
            if status == 200:
                self.connections += 1
                self._read(connection, rest, is_over)
            elif status == 401:
                self._user.account.renew(self._user, self._user.token)
                self._user.token = self._user.account.token
            elif status not in BUSY:
                self.unexpected.append(f"GET {self.path}: {status}")

    def _request(self):
        position = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        return (
            f"GET {self.path} HTTP/1.1\r\nHost: {self._address[0]}:{self._address[1]}\r\n"
            f"Authorization: Bearer {self._user.token}\r\n{position}\r\n"
        ).encode()

    @staticmethod
    def _read_head(connection):
        connection.settimeout(SILENCE_SECONDS)
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(RECEIVED_BYTES)
            if not piece:
                raise ConnectionError("the connection ended within the head")
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def _read(self, connection, rest, is_over):
        """Take the events, until the connection ends or is silent, or this client breaks it."""
        connection.settimeout(POLL_SECONDS)
        breaks_at = time.monotonic() + self.chance.uniform(*HELD_SECONDS)
        heard_at, data = time.monotonic(), rest
        while True:
            *events, data = data.split(b"\n\n")
            for event in events:
                self._take(event.decode())
            now = time.monotonic()
            if is_over() or now > breaks_at or now - heard_at > SILENCE_SECONDS:
                return
            with suppress(TimeoutError):
                piece = connection.recv(RECEIVED_BYTES)
                if not piece:
                    self.ends += 1
                    return
                data, heard_at = data + piece, time.monotonic()

    def _take(self, event):
        fields = dict(line.split(": ", 1) for line in event.split("\n") if ": " in line)
        self.last_id = fields.get("id", self.last_id)
        self.first_id = self.first_id or self.last_id
        kind = fields.get("event", "message")
        if kind == "gap":
            self.gaps += 1
        elif kind == "message" and "data" in fields:
            self.entries.append((fields["id"], self._name_of(json.loads(fields["data"]))))
