"""The services as processes under a supervisor that restarts them.

    suite = Suite(env, log_dir=Path("var/log"))
    suite.start()
    suite.wait_ready(60)                     # until GET /health/ready is 200 and names no service that is down
    suite.kill("orders", signal.SIGKILL)     # the supervisor restarts it
    suite.stop()

`env` holds the variables of config.yml. Each service gets those that are for it (service_environment.py).
"""

import compileall
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contracts.services import GATEWAY, PROCESSES
from deploy.local import ports, service_environment
from deploy.local.process import PidFile, StartError, kill_tree, signal_process, spawn, tail, wait_until
from deploy.local.unprivileged import ServiceUsers
from extensions.runtime.backoff import Backoff

ROOT = Path(__file__).resolve().parents[2]
MAX_FAILED_STARTS = 5  # of a service, before the suite was ready for the first time
FIRST_RESTART_SECONDS = 0.5
LONGEST_RESTART_SECONDS = 10.0
HEALTHY_SECONDS = 30.0  # after a run of this length, the next restart has the shortest pause


def restart_backoff() -> Backoff:
    """The pauses before restarts of a service: 0.5, 1, 2, 4, 8, 10, 10 ... s; 0.5 s again after a run of 30 s."""
    return Backoff(FIRST_RESTART_SECONDS, LONGEST_RESTART_SECONDS, jitter=0.0, healthy_after=HEALTHY_SECONDS)


@dataclass
class _Service:
    name: str
    log: Path
    pid_file: PidFile
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    wanted: bool = True  # the supervisor starts a wanted service, but not before `start_at`
    start_at: float = 0.0
    restarts: int = 0
    backoff: Backoff = field(default_factory=restart_backoff)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Suite:
    """One process per service, `nameko run --config config.yml <name>.service`, each with its own log."""

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        log_dir: Path,
        services: Sequence[str] = PROCESSES,
        config: str = "config.yml",
        command: Sequence[str] = (),
        more_variables: Sequence[str] = (),
        users: ServiceUsers | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """`more_variables` of `env` are for the services too (service_environment.py); `users` are theirs, for root."""
        # PYTHONPATH: config.yml names our log formatter, which `nameko` imports before it adds its folder to the path
        ours = {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
            # otherwise every start compiles our modules again, which takes a sixth of its time
            "PYTHONDONTWRITEBYTECODE": "",
            # saves 15 MB per process; host names are resolved only once per connection
            "EVENTLET_NO_GREENDNS": "yes",
            # return the memory of password hashing to the system; otherwise users keeps 170 MiB, 19 for each thread
            "MALLOC_MMAP_THRESHOLD_": "1000000",
        }
        self.env = {**os.environ, **ours, **env}
        self.config = config
        self._more = list(more_variables)
        self.users = users
        # the command instead of `nameko`, with the same arguments: tests use it to instrument a service
        self._command = list(command) or [str(Path(sys.executable).with_name("nameko"))]
        self._say = say or (lambda _text: None)
        run_dir = log_dir.resolve().parent / "pids"
        self._services = {
            name: _Service(name, log_dir.resolve() / f"{name}.log", PidFile(run_dir / f"{name}.pid"))
            for name in services
        }
        self._lock = threading.Lock()  # held while processes are started or stopped
        self._finished = threading.Event()
        self._supervisor: threading.Thread | None = None
        self._was_ready = False

    # the whole suite

    def start(self) -> None:
        """Start all services and the supervisor, without waiting until they are ready."""
        if self.users:
            self._compile()
        for service in self._services.values():
            service.pid_file.end_leftover(signal.SIGTERM, grace=5)
            if service.log.exists():  # keep only the log of the previous run
                service.log.replace(service.log.with_suffix(".log.1"))
            self._spawn(service)
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()

    def _compile(self) -> None:
        """Compile our modules, because the services' users may not write what they compile."""
        for package in ("contracts", "extensions", *self._services):
            compileall.compile_dir(ROOT / package, quiet=2)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until all are ready. Raises StartError after `timeout`, or if a service ends again and again."""
        deadline = time.monotonic() + timeout
        while True:
            missing = self._not_ready()
            if not missing:
                self._was_ready = True
                return
            for service in self._services.values():
                if service.backoff.failures >= MAX_FAILED_STARTS and not self._was_ready:
                    raise StartError(f"{service.name} keeps ending. The end of {service.log}:\n{tail(service.log)}")
            if time.monotonic() > deadline:
                raise StartError(f"not ready after {timeout:.0f} s: {missing}{self._log_tails()}")
            time.sleep(0.1)

    def stop(self, grace: float = 20.0) -> None:
        """Send SIGTERM to the gateway, and then to all others at once: the gateway's open requests still need them.

        Processes that have not ended after `grace` seconds get SIGKILL.
        """
        with self._lock:
            for service in self._services.values():
                service.wanted = False
        self._end([service for service in self._services.values() if service.name == GATEWAY], grace)
        self._end([service for service in self._services.values() if service.name != GATEWAY], grace)
        for service in self._services.values():
            service.pid_file.remove()
        self._finished.set()
        if self._supervisor is not None:
            self._supervisor.join(timeout=10)

    def _end(self, services: list[_Service], grace: float) -> None:
        running = [service for service in services if service.alive]
        for service in running:
            self._signal(service, signal.SIGTERM)
        if not wait_until(lambda: not any(service.alive for service in running), seconds=grace):
            for service in running:
                if service.alive and service.process is not None:
                    self._say(f"{service.name} did not stop within {grace:.0f} s and was killed")
                    kill_tree(service.process.pid)
                    service.process.wait(timeout=10)

    # one service

    def pid(self, name: str) -> int | None:
        """The pid of the service's process; None while it is down."""
        service = self._services[name]
        return service.process.pid if service.alive and service.process else None

    def log(self, name: str) -> Path:
        """The file that this service's output goes to."""
        return self._services[name].log

    def restart_count(self, name: str) -> int:
        """The number of restarts of this service by the supervisor."""
        return self._services[name].restarts

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal. If the process ends, the supervisor restarts it."""
        self._signal(self._services[name], number)

    def stop_service(self, name: str, grace: float = 20.0) -> None:
        """Stop one service until `start_service`."""
        service = self._services[name]
        with self._lock:
            service.wanted = False
        self._signal(service, signal.SIGTERM)
        if not wait_until(lambda: not service.alive, seconds=grace):
            self._signal(service, signal.SIGKILL)
            wait_until(lambda: not service.alive, seconds=10)

    def start_service(self, name: str) -> None:
        """Let the supervisor restart a service that `stop_service` stopped."""
        service = self._services[name]
        with self._lock:
            service.wanted, service.start_at = True, 0.0

    # the supervisor

    def _spawn(self, service: _Service) -> None:
        command = [*self._command, "run", "--config", self.config, f"{service.name}.service"]
        service.process = spawn(
            self.users.command(service.name, command) if self.users else command,
            env=self._environment(service.name),
            log=service.log,
            cwd=ROOT,
            on_launcher_death=signal.SIGKILL,
        )
        service.started = time.monotonic()
        service.pid_file.write(service.process.pid)

    def _environment(self, service: str) -> dict[str, str]:
        own = service_environment.of(service, self.env, ROOT / self.config, self._more)
        return own | {"HOME": "/nonexistent", "USER": service, "LOGNAME": service} if self.users else own

    def _signal(self, service: _Service, number: signal.Signals) -> None:
        if service.alive and service.process is not None:
            signal_process(service.process.pid, number)

    def _supervise(self) -> None:
        """Detect ended services, and restart the wanted ones after their pause.

        All restarts happen in this thread, which runs until the suite has stopped: a child gets the signal
        `on_launcher_death` when the thread that started it ends.
        """
        while not self._finished.wait(0.1):
            with self._lock:
                for service in self._services.values():
                    self._check(service, time.monotonic())

    def _check(self, service: _Service, now: float) -> None:
        if service.alive or not service.wanted:
            return
        if service.process is not None:
            self._on_ended(service, now)
        elif now >= service.start_at:
            self._restart(service, now)

    def _restart(self, service: _Service, now: float) -> None:
        try:
            self._spawn(service)
        except OSError as error:  # temporarily out of memory, processes or files
            pause = service.backoff.next_pause()
            self._say(f"{service.name} could not be started ({error}); trying again in {pause:g} s")
            service.start_at = now + pause
        else:
            service.restarts += 1

    def _on_ended(self, service: _Service, now: float) -> None:
        assert service.process is not None
        pause = service.backoff.next_pause(ran_for=now - service.started)
        code = service.process.returncode
        self._say(f"{service.name} ended ({_describe(code)}); restarting it in {pause:g} s; its log: {service.log}")
        service.process = None
        service.start_at = now + pause

    def _not_ready(self) -> str:
        """Describe what is not ready yet; empty if all is ready."""
        down = [service.name for service in self._services.values() if not service.alive]
        if down:
            return f"{', '.join(down)} not running"
        if GATEWAY in self._services:
            return self._gateway_not_ready()
        from deploy import healthcheck

        uri = self.env["AMQP_URI"]
        return ", ".join(name for name in self._services if not healthcheck.is_healthy(uri, name, timeout=2))

    def _gateway_not_ready(self) -> str:
        from deploy import healthcheck

        host, port = ports.reachable(self.env.get("GATEWAY_ADDRESS", "0.0.0.0:8000"))
        try:
            report = healthcheck.ask_gateway(f"{host}:{port}", timeout=5)
        except healthcheck.Unhealthy as error:
            return str(error)
        except (OSError, http.client.HTTPException) as error:
            return f"the gateway on port {port} does not respond ({error})"
        return ", ".join(f"{part} is down" for part in healthcheck.parts_down(report))

    def _log_tails(self) -> str:
        """The ends of the logs of the services that are down, or of all services."""
        down = [service for service in self._services.values() if not service.alive]
        return "".join(f"\n--- {s.log}\n{tail(s.log, 12)}" for s in down or self._services.values())


def _describe(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
