"""Plain sockets for the tests of the proxies."""

import socket
from contextlib import closing


def connect(port):
    return closing(socket.create_connection(("127.0.0.1", port), timeout=5))


def receive(connection, count):
    got = b""
    while len(got) < count and (more := connection.recv(65536)):
        got += more
    return got
