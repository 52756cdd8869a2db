"""The client of the streams connects again after each break, with the id of the last whole event."""

import random
import socket
import threading
from types import SimpleNamespace

import pytest

from qa.chaos.event_stream import EventStream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 2000\n\n:\n\n"


@pytest.fixture
def server():
    """`serve` responds to a connection with each of its arguments; `requests` has the heads of the requests."""
    listening = socket.create_server(("127.0.0.1", 0))
    requests = []

    def serve(*responses):
        def run():
            for response in responses:
                connection, _ = listening.accept()
                with connection:
                    requests.append(connection.recv(65536).decode())
                    connection.sendall(response)

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield SimpleNamespace(serve=serve, requests=requests)
    listening.close()


class User:
    """A client whose token is replaced once."""

    def __init__(self, url):
        self.url, self.token, self.account = url, "old", self

    def new_connection(self, _responses):
        return self

    def renew(self, _client, refused):
        assert refused == "old"
        self.token = "new"


def event(number, name="one"):
    return f'id: {number}\ndata: {{"event_id":"{name}"}}\n\n'.encode()


def test_it_goes_on_after_the_last_whole_event(server):
    url = server.serve(
        HEAD + event(1) + event(2)[:10],
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\n\r\n",
        HEAD + b'event: status\ndata: {"status":"CONFIRMED"}\n\n' + event(2, "two") + b"event: gap\ndata: {}\n\n",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
    )
    stream = EventStream(User(url), "/orders/1/events", lambda data: data["event_id"], random.Random(1))
    stream.follow(lambda: bool(stream.unexpected))
    assert stream.entries == [("1", "one"), ("2", "two")]
    assert (stream.first_id, stream.last_id, stream.connections, stream.gaps) == ("1", "2", 2, 1)
    assert stream.unexpected == ["GET /orders/1/events: 404"]
    assert ["Last-Event-ID: 1" in one for one in server.requests] == [False, True, True, True, False]
    assert "Last-Event-ID: 2" in server.requests[-1]
    assert ["Bearer new" in one for one in server.requests] == [False, False, False, True, True]


def test_an_id_without_data_is_a_position(server):
    url = server.serve(HEAD + b"id: 17-0\n\n")
    stream = EventStream(User(url), "/admin/events", lambda data: data["event_id"], random.Random(1))
    stream.follow(lambda: stream.first_id is not None)
    assert (stream.first_id, stream.entries) == ("17-0", [])
