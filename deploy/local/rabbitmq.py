"""A private RabbitMQ: a separate node with its own cookie, epmd, data and logs, only on the loopback interface.

By default RabbitMQ looks for all of these in the home of the user `rabbitmq`, so most of this module sets their paths.
epmd, the port mapper of Erlang nodes, is started here, because RabbitMQ would start it as a daemon that does not end.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from contracts.call_permissions import bus_services
from deploy.local import install
from deploy.local.process import PidFile, StartError, spawn, stop_process, wait_until
from deploy.local.server import Server
from deploy.local.unprivileged import own, package_user
from deploy.server_users import OPERATOR, administrator_of, password_of
from extensions.runtime.addresses import uri_variable

GREETING = b"AMQP\x00\x00\x09\x01"  # the client's first bytes; the broker replies with a method frame, type 1

ROOT = Path(__file__).resolve().parents[2]
SHARED_CONFIG = ROOT / "deploy" / "rabbitmq" / "rabbitmq.conf"
LOCAL_CONFIG = """
listeners.tcp.1 = 127.0.0.1:{port}
load_definitions = {definitions}
# the default, 40 % of the machine's memory, is too much for a private server
vm_memory_high_watermark.absolute = 1GB
log.console.level = info
"""


class RabbitMQ(Server):
    name = "rabbitmq"
    grace = 30.0
    deadline = 240.0
    tries = 3  # it ends with "no_epmd_port" if epmd does not answer in time, which happens on a busy machine

    def __init__(
        self,
        home: Path,
        logs: Path,
        port: int,
        *,
        dist_port: int,
        epmd_port: int,
        passwords: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(home, logs, port, passwords=passwords)
        self.dist_port = dist_port
        self.epmd_port = epmd_port
        self._logs = logs
        self._epmd: subprocess.Popen[bytes] | None = None
        self._epmd_pid = PidFile(home.with_name("epmd.pid"))

    def uris(self) -> dict[str, str]:
        """The addresses of the broker, by the variables of config.yml: one for the administrator and for each user."""
        passwords = {user: password_of(user, self._environ) for user in (*bus_services(), OPERATOR)}
        users = {"AMQP_URI": administrator_of(self._environ)}
        users |= {uri_variable(user): (user, password) for user, password in passwords.items()}
        return {
            variable: f"pyamqp://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{self.port}//"
            for variable, (user, password) in users.items()
        }

    @property
    def _environ(self) -> dict[str, str]:
        return os.environ | self.passwords

    @property
    def _state(self) -> Path:
        """The folder of the files that the node writes, besides its data and its logs."""
        return self.home / "state"

    def user(self) -> tuple[int, int] | None:
        """The uid and gid to run as, if this process is root."""
        return package_user("rabbitmq")

    def prepare(self) -> None:
        self.make_home("state", "mnesia", "log")
        self._move_feature_flags()
        self._make_cookie()
        definitions = self.home / "definitions.json"
        config = SHARED_CONFIG.read_text() + LOCAL_CONFIG.format(port=self.port, definitions=definitions)
        (self.home / "rabbitmq.conf").write_text(config)
        self._write_definitions(definitions)
        (self.home / "enabled_plugins").write_text("[].\n")
        (self.home / "rabbitmq-env.conf").write_text("")
        self._start_epmd()

    def _make_cookie(self) -> None:
        cookie, user = self._state / ".erlang.cookie", self.user()
        if not cookie.exists():
            with os.fdopen(os.open(cookie, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
                file.write(secrets.token_hex(20))
                if user is not None:
                    os.fchown(file.fileno(), *user)

    def _move_feature_flags(self) -> None:
        """Up to version 0.1 they were beside the configuration. Without them the node does not read its data."""
        old, new = self.home / "feature_flags", self._state / "feature_flags"
        if old.exists() and not new.exists():
            old.replace(new)
            own(new, self.user())

    def _write_definitions(self, path: Path) -> None:
        """Write the definitions in a separate process, because loading config.yml would change Nameko's global
        configuration in this one.
        """
        command = [sys.executable, "-W", "ignore", "-m", "deploy.definitions", str(path)]
        env = self._environ | {"ENVIRONMENT": "development"}
        made = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)
        if made.returncode:
            raise StartError(f"the broker's definitions could not be created: {made.stderr}")

    def _start_epmd(self) -> None:
        if self._epmd is not None and self._epmd.poll() is None:
            return
        self._epmd_pid.end_leftover(signal.SIGTERM, grace=3)
        self._epmd = spawn(
            [str(install.find("epmd")), "-port", str(self.epmd_port), "-address", "127.0.0.1"],
            env={"PATH": os.environ.get("PATH", os.defpath)},
            log=self._logs / "epmd.log",
            cwd=self.home,
            on_launcher_death=signal.SIGTERM,
            user=self.user(),
        )
        self._epmd_pid.write(self._epmd.pid)
        wait_until(lambda: _listens(self.epmd_port), seconds=60)

    def command(self) -> list[str]:
        return [str(install.rabbitmq())]

    def environment(self) -> dict[str, str]:
        home, state = str(self.home), str(self._state)
        return {
            "HOME": state,
            "RABBITMQ_NODENAME": "order-suite@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": f"{home}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{state}/feature_flags",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{state}/generated",
            "RABBITMQ_SCHEMA_DIR": f"{state}/schema",
            "RABBITMQ_PID_FILE": f"{state}/node.pid",
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_LOGS": "-",  # to its output, which is our log
            # without a shell that waits for the node, so the started process is the node itself
            "RUNNING_UNDER_SYSTEMD": "true",
            # there may be several nodes on one small machine: do not pin threads to cores, do not spin while idle
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.settimeout(2)
                connection.sendall(GREETING)
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def stop(self) -> None:
        super().stop()
        if self._epmd is not None:
            stop_process(self._epmd, signal.SIGTERM, grace=3)
            self._epmd = None
        self._epmd_pid.remove()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
