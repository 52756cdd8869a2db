"""Fixtures of the tests of the proxies."""

import socket
import threading
from contextlib import suppress

import pytest

from qa.chaos.proxy import Proxies


@pytest.fixture
def received():
    """What the echo server has received, in pieces."""
    return []


@pytest.fixture
def echo(received):
    """A proxy for an echo server."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(client):
        with client, suppress(OSError):  # the proxy may reset the connection
            while data := client.recv(65536):
                received.append(data)
                client.sendall(data)

    def accept():
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=[client], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    proxies = Proxies()
    environment = proxies.start({"REDIS_URL": f"redis://127.0.0.1:{listening.getsockname()[1]}/0"})
    yield proxies, int(environment["REDIS_URL"].rpartition(":")[2].partition("/")[0])
    proxies.stop()
    listening.close()
