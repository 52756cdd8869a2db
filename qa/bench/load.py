"""The load generator, a separate process: `python -m qa.bench.load <plan.json >result.json`.

It uses sockets and one epoll: it shares the machine with what it measures, so it must be cheap, and it reports its own
processor time. The plan:

    {"address": "127.0.0.1:8000", "requests": [{"method", "path", "headers", "body"}, ...],   used round-robin
     "clients": 32, "seconds": 10}                        a closed loop: a client's next request follows its response
    {..., "rate": 50, "seconds": 10}                      an open loop: a request every 1/rate s

The result: {"began", "ended", "cpu_seconds", "not_sent", "responses": [[due, seconds, status, id], ...]}. Times are
those of time.time(); `seconds` is the latency from the time when the request was due, not when it was sent.
"""

import heapq
import json
import re
import resource
import select
import socket
import sys
import time
from collections import deque
from itertools import count, cycle
from uuid import uuid4

MAX_CONNECTIONS = 1500
REFUSED_PAUSE = 0.1  # a client waits so long after a refusal
LAST_RESPONSE_SECONDS = 10.0
NO_RESPONSE = 0
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
ID = re.compile(rb'"id": ?"([0-9a-f-]{36})"')
CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Connection:
    """One keep-alive connection; `due` is the time at which its current request was due."""

    __slots__ = ("buffer", "due", "socket")

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = b""
        self.due = 0.0


class Generator:
    """Sends the requests; `responses` and `not_sent` are the result."""

    def __init__(self, address, requests):
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._requests = cycle([_render(address, request) for request in requests])
        self._poll = select.epoll()
        self._busy = {}  # by file descriptor
        self._idle = deque()
        self.responses = []
        self.not_sent = 0

    def closed_loop(self, clients, seconds):
        """Keep `clients` requests in flight for `seconds`."""
        end = time.time() + seconds
        paused = []  # (time of the next request, tie-breaker)
        for _ in range(clients):
            self._send(time.time())
        tie = count()
        while (now := time.time()) < end:
            while paused and paused[0][0] <= now:
                heapq.heappop(paused)
                self._send(time.time())
            pause = min(end, paused[0][0] if paused else end) - now
            for status in self._receive(max(0.0, pause)):
                if 200 <= status < 300:
                    self._send(time.time())
                else:
                    heapq.heappush(paused, (time.time() + REFUSED_PAUSE, next(tie)))
        self._await_last()

    def open_loop(self, rate, seconds):
        """Send a request every 1/rate seconds, for `seconds`."""
        began, number, total = time.time(), 0, max(1, int(rate * seconds))
        while number < total:
            now = time.time()
            while number < total and (due := began + number / rate) <= now:
                number += 1
                if len(self._busy) < MAX_CONNECTIONS:
                    self._send(due)
                else:
                    self.not_sent += 1
            for _status in self._receive(max(0.0, began + number / rate - time.time())):
                pass
        self._await_last()

    def _await_last(self):
        deadline = time.time() + LAST_RESPONSE_SECONDS
        while self._busy and time.time() < deadline:
            for _status in self._receive(0.1):
                pass
        for connection in list(self._busy.values()):
            self._done(connection, NO_RESPONSE, None)

    def _send(self, due):
        while self._idle:
            connection = self._idle.popleft()
            if self._write(connection, due):
                return
        connection = Connection(self._address)
        self._poll.register(connection.socket.fileno(), select.EPOLLIN)
        if not self._write(connection, due):
            raise ConnectionError("the server closes new connections")

    def _write(self, connection, due):
        head, body = next(self._requests)
        message = head + b"Idempotency-Key: " + str(uuid4()).encode() + b"\r\n\r\n" + body if body else head + b"\r\n"
        try:
            connection.socket.sendall(message)
        except OSError:  # closed by the server while it was idle
            connection.socket.close()
            return False
        connection.due = due
        self._busy[connection.socket.fileno()] = connection
        return True

    def _receive(self, timeout):
        """Wait at most `timeout` seconds for responses, and yield their statuses."""
        for descriptor, _event in self._poll.poll(timeout):
            connection = self._busy.get(descriptor)
            if connection is None:  # idle, and closed by the server
                self._forget(descriptor)
                continue
            try:
                received = connection.socket.recv(65536)
            except OSError:
                received = b""
            if not received:
                yield self._done(connection, NO_RESPONSE, None)
                continue
            connection.buffer += received
            head, separator, body = connection.buffer.partition(b"\r\n\r\n")
            if separator and len(body) >= int(LENGTH.search(head + b"\r\n").group(1)):
                found = ID.search(body)
                reusable = not CLOSE.search(head)
                yield self._done(connection, int(head[9:12]), found and found.group(1).decode(), reusable=reusable)

    def _done(self, connection, status, made, *, reusable=False):
        self.responses.append((connection.due, time.time() - connection.due, status, made))
        del self._busy[connection.socket.fileno()]
        connection.buffer = b""
        if reusable:
            self._idle.append(connection)
        else:
            connection.socket.close()
        return status

    def _forget(self, descriptor):
        for connection in list(self._idle):
            if connection.socket.fileno() == descriptor:
                self._idle.remove(connection)
                connection.socket.close()


def _render(address, request):
    """Return the head without its end, and the body; each request adds its own header between them."""
    body = json.dumps(request["body"]).encode() if request.get("body") is not None else b""
    headers = {"Host": address, **request.get("headers", {})}
    if body:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{request['method']} {request['path']} HTTP/1.1", *(f"{name}: {one}" for name, one in headers.items())]
    return ("\r\n".join(lines) + "\r\n").encode(), body


def main():
    """The command line."""
    plan = json.load(sys.stdin)
    generator, began = Generator(plan["address"], plan["requests"]), time.time()
    if "rate" in plan:
        generator.open_loop(plan["rate"], plan["seconds"])
    else:
        generator.closed_loop(plan["clients"], plan["seconds"])
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "began": began,
        "ended": time.time(),
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "not_sent": generator.not_sent,
        "responses": generator.responses,
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
