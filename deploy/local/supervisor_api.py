"""Lets the console of development end and freeze services: a small HTTP server on loopback, only in `make run`.

GET /services lists the processes. POST /services `{"service": "payments", "action": "freeze"}` takes kill, freeze and
thaw. Both need the access token of an administrator. A frozen process goes on by itself after MAX_FROZEN_SECONDS.
"""

import json
import signal
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from contracts.errors import ServiceError
from contracts.services import PROCESSES
from contracts.users import Role
from deploy.local.suite import Suite
from extensions.security.access_tokens import load_public_keys, verify

MAX_FROZEN_SECONDS = 60.0
MAX_BODY_BYTES = 1000
TIMEOUT_SECONDS = 5.0
ACTIONS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}


class SupervisorApi:
    """The server, in a thread of its own. One request at a time is enough for one person."""

    def __init__(self, suite: Suite, port: int, gateway_url: str, public_key: Path) -> None:
        self._suite, self._public_key = suite, public_key
        self._frozen: dict[str, float] = {}  # service -> when it goes on
        handler = type("Handler", (_Handler,), {"api": self, "gateway_url": gateway_url})
        self._server = HTTPServer(("127.0.0.1", port), handler)
        self._server.timeout = 1.0
        self.port = int(self._server.server_address[1])
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor_api", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the server. Frozen processes go on, so that they can end."""
        self._is_stopped.set()
        self._thread.join(timeout=TIMEOUT_SECONDS + 2)
        self._server.server_close()
        for service in list(self._frozen):
            self.act(service, "thaw")

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            self._server.handle_request()  # returns after a second without one
            for service, until in list(self._frozen.items()):
                if time.monotonic() > until:
                    self.act(service, "thaw")

    def is_admin(self, token: str) -> bool:
        """Tell whether an access token is valid and of an administrator."""
        with suppress(ServiceError, OSError, TypeError):
            return Role.ADMIN in verify(token, load_public_keys(self._public_key)).roles
        return False

    def services(self) -> list[dict[str, Any]]:
        """Return each service with its state: running, frozen or down."""
        return [
            {"service": name, "state": self._state(name), "restarts": self._suite.restart_count(name)}
            for name in PROCESSES
        ]

    def _state(self, name: str) -> str:
        if self._suite.pid(name) is None:
            return "down"
        return "frozen" if name in self._frozen else "running"

    def act(self, service: str, action: str) -> None:
        """Send the signal of an action. A killed process is restarted by the supervisor."""
        self._suite.kill(service, ACTIONS[action])
        if action == "freeze":
            self._frozen[service] = time.monotonic() + MAX_FROZEN_SECONDS
        else:
            self._frozen.pop(service, None)


class _Handler(BaseHTTPRequestHandler):
    """One request. Pages of `gateway_url` only may read the response; it may be named localhost, too."""

    api: SupervisorApi
    gateway_url: str
    timeout = TIMEOUT_SECONDS

    def do_OPTIONS(self) -> None:
        """Respond to the browser's question before a request."""
        self._respond(204)

    def do_GET(self) -> None:
        """List the services."""
        if self._is_allowed():
            self._respond(200, {"items": self.api.services()})

    def do_POST(self) -> None:
        """Carry out an action."""
        if not self._is_allowed():
            return
        service, action = self._read()
        if service not in PROCESSES or action not in ACTIONS:
            self._respond(400, {"detail": "send a service and an action: kill, freeze or thaw"})
            return
        self.api.act(service, action)
        self._respond(200, {"items": self.api.services()})

    def _is_allowed(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if self.path == "/services" and scheme == "Bearer" and self.api.is_admin(token):
            return True
        self._respond(403, {"detail": "this needs the access token of an administrator"})
        return False

    def _read(self) -> tuple[str, str]:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return "", ""
        with suppress(ValueError, AttributeError):
            body = json.loads(self.rfile.read(int(length)))
            return str(body.get("service")), str(body.get("action"))
        return "", ""

    def _origins(self) -> tuple[str, str]:
        return self.gateway_url, self.gateway_url.replace("//127.0.0.1", "//localhost")

    def _respond(self, status: int, body: Any = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        origin = self.headers.get("Origin")
        self.send_header("Access-Control-Allow-Origin", origin if origin in self._origins() else self.gateway_url)
        self.send_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
        self.send_header("Access-Control-Max-Age", "600")
        self.send_header("Vary", "Origin")
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """No line for each request."""
