"""A receiver of webhooks on loopback, which responds as a test says and keeps what it received."""

from dataclasses import dataclass

import eventlet


@dataclass
class Delivered:
    path: str
    headers: dict
    body: bytes

    @property
    def id(self):
        return self.headers["webhook-id"]


class Receiver:
    """`respond(delivered)` returns a status, or (status, headers, body); it may wait."""

    def __init__(self, respond=lambda _: 200):
        self.respond = respond
        self.received, self.running, self.most_running = [], 0, 0
        self._socket = eventlet.listen(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/hook"
        self._greenlets = eventlet.GreenPool(2000)
        self._acceptor = eventlet.spawn(self._accept)

    def of_type(self, event):
        return [one for one in self.received if f'"type":"{event}"'.encode() in one.body]

    def stop(self):
        self._acceptor.kill()
        for greenlet in list(self._greenlets.coroutines_running):
            eventlet.kill(greenlet)
        self._socket.close()

    def _accept(self):
        while True:
            connection, _ = self._socket.accept()
            self._greenlets.spawn_n(self._serve, connection)

    def _serve(self, connection):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            delivered = self._read(connection)
            self.received.append(delivered)
            response = self.respond(delivered)
            status, headers, body = response if isinstance(response, tuple) else (response, {}, b"")
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"HTTP/1.1 {status} Status\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
            connection.sendall(head.encode() + body)
        except OSError:
            pass
        finally:
            self.running -= 1
            connection.close()

    @staticmethod
    def _read(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65_536)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers["content-length"]):
            body += connection.recv(65_536)
        return Delivered(first.split()[1], headers, body)
