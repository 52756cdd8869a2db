"""`make run`: start the servers, create keys and tables, start the services, fill the demo shop, wait for Ctrl-C."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from contracts.services import PROCESSES
from deploy.config_file import ENV_FILE, ROOT
from deploy.local import environment, ports, unprivileged
from deploy.local.process import PidFile, StartError, spawn, tail, wait_until
from deploy.local.servers import OURS, Servers
from deploy.local.suite import Suite
from deploy.local.supervisor_api import SupervisorApi
from deploy.local.unprivileged import ServiceUsers
from deploy.server_users import OPERATOR
from extensions.runtime.addresses import uri_variable
from extensions.runtime.parsed_settings import is_production

VAR = ROOT / "var"
REQUESTS_FILE = VAR / "api.http"
PID_FILE = VAR / "launcher.pid"
# On loopback by default, because `make run` prints demo passwords. GATEWAY_HOST opens it to the network.
GATEWAY_HOST, GATEWAY_PORT = "127.0.0.1", 8000
# The mailbox of this run, which shows the mails instead of sending them.
OURS_MAIL, SMTP_PORT, MAILBOX_PORT = "127.0.0.1", 1025, 8025
SUPERVISOR_PORT = 8001
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The user asked to stop, by Ctrl-C or `make stop`."""


class Launcher:
    """The whole suite of this clone. Prints each step of its start and stop with the seconds since the start."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.env: dict[str, str] = {}
        self.servers: Servers | None = None
        self.suite: Suite | None = None
        self._mailbox: subprocess.Popen[bytes] | None = None
        self._supervisor_api: SupervisorApi | None = None
        self._stop = threading.Event()

    def say(self, text: str) -> None:
        """Print a line of progress."""
        print(f"[{time.monotonic() - self.began:5.1f} s] {text}", flush=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[dict[str, str]]:
        """Run the suite inside the block and stop it afterwards. StartError if it does not start."""
        self._handle_signals()
        pid_file = PidFile(PID_FILE)
        if pid_file.read() is not None:
            raise StartError(
                f"the suite of this folder is already running (process {pid_file.read()}): `make stop` stops it"
            )
        servers = self.servers = Servers(VAR, say=self.say)
        try:
            servers.lock()
            pid_file.write(os.getpid())
            addresses = servers.launch()
            self.env = self._settings(addresses)
            self._start_mailbox()
            environment.write(ENV_FILE, self.env)
            self._write_requests()
            self._task("preparing keys and tables", "deploy.prepare")
            servers.wait_ready()
            self.suite = Suite(self.env, log_dir=VAR / "log", users=self._service_users(servers), say=self.say)
            self.say("starting the services")
            self.suite.start()
            self.suite.wait_ready(90)
            self.say("all services are ready")
            self._seed(servers)
            self._start_supervisor_api()
            yield self.env
        finally:
            # A second Ctrl-C must not interrupt the stop; all waits below are bounded.
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            self._take_down(servers, pid_file)

    def wait(self) -> None:
        """Wait until the user stops the suite. Restart servers that died; the suite restarts services itself."""
        while not self._stop.wait(1.0):
            if self.servers is not None:
                self.servers.revive()

    def _handle_signals(self) -> None:
        """Set the handlers explicitly: a background job of a shell script inherits SIGINT as ignored."""

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if not self._stop.is_set():
                self._stop.set()
                raise Stopped

        for number in STOP_SIGNALS:
            signal.signal(number, on_signal)

    def _settings(self, addresses: dict[str, str]) -> dict[str, str]:
        """Return the variables of config.yml for this run: addresses, the gateway's port, the keys, the environment."""
        given = {} if OURS in os.environ else os.environ
        address = given.get("GATEWAY_ADDRESS")
        if not address:
            host = given.get("GATEWAY_HOST") or GATEWAY_HOST
            port = ports.claim_free(GATEWAY_PORT, VAR, host=host)
            if port != GATEWAY_PORT:
                self.say(f"port {GATEWAY_PORT} is taken, so the gateway listens on {port}")
            address = f"{host}:{port}"
        reachable_host, reachable_port = ports.reachable(address)
        url = f"http://{reachable_host}:{reachable_port}"
        keys = VAR / "keys"
        defaults = {
            "JWT_PRIVATE_KEY_FILE": str(keys / "jwt-private.pem"),
            "JWT_PUBLIC_KEY_FILE": str(keys / "jwt-public.pem"),
            "ENVIRONMENT": "development",
            "OUTBOUND_ALLOW_LOOPBACK": "no" if is_production(given) else "yes",
            "SHOP_URL": url,
            **ports.metrics_addresses(VAR, PROCESSES),
        }
        if not is_production(given) and not given.get("SMTP_HOST"):
            defaults |= {
                "SMTP_HOST": OURS_MAIL,
                "SMTP_PORT": str(ports.claim_free(SMTP_PORT, VAR)),
                "MAILBOX_URL": f"http://127.0.0.1:{ports.claim_free(MAILBOX_PORT, VAR)}",
            }
        if not is_production(given) and ports.is_loopback(address):
            defaults["SUPERVISOR_URL"] = f"http://127.0.0.1:{ports.claim_free(SUPERVISOR_PORT, VAR)}"
        return {
            **addresses,
            "GATEWAY_ADDRESS": address,
            "GATEWAY_URL": url,
            **{name: given.get(name) or value for name, value in defaults.items()},
        }

    def _start_mailbox(self) -> None:
        """Start the mailbox that receives the mails of this run, unless a mail server is given."""
        if is_production(self.env) or "MAILBOX_URL" not in self.env:
            return
        page = self.env["MAILBOX_URL"].removeprefix("http://")
        smtp = f"127.0.0.1:{self.env['SMTP_PORT']}"
        self._mailbox = spawn(
            [sys.executable, "-m", "deploy.mailbox", "--smtp", smtp, "--page", page],
            env=dict(os.environ),
            log=VAR / "log/mailbox.log",
            cwd=ROOT,
            on_launcher_death=signal.SIGKILL,
        )

    def _start_supervisor_api(self) -> None:
        """Let the console end and freeze services, if the gateway is reachable from this machine only."""
        url = self.env.get("SUPERVISOR_URL", "none")
        if self.suite is not None and url != "none" and not is_production(self.env):
            public_key = Path(self.env["JWT_PUBLIC_KEY_FILE"])
            port = int(url.rpartition(":")[2])
            self._supervisor_api = SupervisorApi(self.suite, port, self.env["GATEWAY_URL"], public_key)

    def _service_users(self, servers: Servers) -> ServiceUsers | None:
        """Return the users that the services run as, if this process is root."""
        port = ports.reachable(self.env["GATEWAY_ADDRESS"])[1]
        try:
            users = unprivileged.choose(PROCESSES, ROOT, servers.data, gateway_port=port)
        except StartError as error:
            self.say(f"the services run as root: {error}")
            return None
        if users:
            users.give(Path(self.env["JWT_PRIVATE_KEY_FILE"]), "users")
        return users

    def _write_requests(self) -> None:
        """Copy docs/api.http to var/api.http with the address of this run."""
        requests = (ROOT / "docs/api.http").read_text()
        host = f"@host = {self.env['GATEWAY_URL']}"
        REQUESTS_FILE.write_text(requests.replace("@host = http://127.0.0.1:8000", host, 1))

    def _task(self, title: str, module: str) -> None:
        """Run a step as a separate process, like the compose file does, and print the last line of its output."""
        self.say(title)
        log = VAR / "log" / f"{module.rpartition('.')[2]}.log"
        log.unlink(missing_ok=True)
        process = spawn(
            [sys.executable, "-m", module],
            env={**os.environ, **self.env, **self._as_operator(), "PYTHONWARNINGS": "ignore"},
            log=log,
            cwd=ROOT,
            on_launcher_death=signal.SIGKILL,
        )
        try:
            ended = wait_until(lambda: process.poll() is not None, seconds=180)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(timeout=10)
        if not ended or process.returncode:
            raise StartError(f"{title} failed. The end of {log}:\n{tail(log)}")
        self.say(f"  {tail(log, 1)}")

    def _as_operator(self) -> dict[str, str]:
        """Return the address of the broker with the operator's user, which may call services and do nothing else."""
        uri = self.env.get(uri_variable(OPERATOR))
        return {"AMQP_URI": uri} if uri else {}

    def _seed(self, servers: Servers) -> None:
        """Fill the demo shop once for each data folder, so that later changes of its data are kept."""
        seeded = servers.data / "seeded"
        if is_production(self.env) or (seeded.exists() and not servers.given):
            return
        self._task("seeding the demo shop", "deploy.seed")
        if not servers.given:  # the next run may be given the addresses of other servers
            seeded.touch()

    def _take_down(self, servers: Servers, pid_file: PidFile) -> None:
        if self.suite is not None or servers.addresses():
            self.say("stopping")
        if self._supervisor_api is not None:
            self._supervisor_api.stop()
        if self.suite is not None:
            self.suite.stop()
        servers.stop()
        if self._mailbox is not None:
            self._mailbox.kill()
            self._mailbox.wait(timeout=10)
        if pid_file.read() == os.getpid():
            pid_file.remove()
            self.say("stopped")


def stop() -> int:
    """Stop the running launcher of this clone, if there is one. Returns the exit code."""
    if PidFile(PID_FILE).end_leftover(signal.SIGTERM, grace=75):
        print("stopped")
    else:
        print("the suite of this folder is not running")
    return 0


def is_running() -> bool:
    """Return whether a suite of this clone is running or starting."""
    return PidFile(PID_FILE).read() is not None
