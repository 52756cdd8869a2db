"""A private Redis: a cache and nothing else, so it writes nothing to disk."""

import socket

from deploy.local import install
from deploy.local.server import Server


class Redis(Server):
    name = "redis"
    grace = 5.0
    deadline = 15.0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.home),
            "save": "",
            "appendonly": "no",
            "maxmemory": "128mb",
            # What has the least time left goes first: a page, before a counter of failed logins is touched.
            "maxmemory-policy": "volatile-ttl",
            "daemonize": "no",
        }
        return [
            str(install.redis()),
            *(part for name, value in options.items() for part in (f"--{name}", value)),
        ]

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(5) == b"+PONG"
        except OSError:
            return False
