"""A private Redis. It is only a cache, so it writes nothing to disk."""

import socket
from pathlib import Path
from urllib.parse import quote

from deploy import redis_users
from deploy.local import install
from deploy.local.server import Server
from deploy.local.unprivileged import package_user
from deploy.server_users import redis_password_of
from extensions.runtime.addresses import redis_variable


class Redis(Server):
    name = "redis"
    grace = 5.0
    deadline = 60.0

    @property
    def url(self) -> str:
        password = self.passwords.get("REDIS_PASSWORD", "")
        login = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def urls(self) -> dict[str, str]:
        """The addresses of Redis, by the variables of config.yml: one for the administrator and for each user."""
        own = {service: quote(redis_password_of(service, self.passwords), safe="") for service in redis_users.RULES}
        users = {
            redis_variable(service): f"redis://{service}:{password}@127.0.0.1:{self.port}/0"
            for service, password in own.items()
        }
        return {"REDIS_URL": self.url, **users}

    def user(self) -> tuple[int, int] | None:
        """The uid and gid to run as, if this process is root."""
        return package_user("redis", "valkey")

    def prepare(self) -> None:
        """Write the users."""
        self.make_home()
        redis_users.write(self._users, self.passwords, production=False)

    @property
    def _users(self) -> Path:
        return self.home / "users.acl"

    def command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.home),
            "save": "",
            "appendonly": "no",
            "maxmemory": "128mb",
            # Evict keys with the shortest time to live first: cached pages before counters of failed logins.
            "maxmemory-policy": "volatile-ttl",
            "aclfile": str(self._users),
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
                return connection.recv(5) in (b"+PONG", b"-NOAU")
        except OSError:
            return False
