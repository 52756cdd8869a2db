"""A TCP proxy between the services and their servers, which injects network faults.

    proxies = Proxies()
    environment = proxies.start(servers.addresses())      # the same variables, with the proxies' addresses
    with proxies.fault(proxies.databases, "stall"):
        ...                                                # the fault ends with the block, also after an exception
    proxies.stop()

The proxies run in a separate process (proxy_process.py), so that they work in a process with eventlet, such as pytest.
It ends with the process that started it. There is one proxy for each service and server, so that a single connection of
a service can be faulty.
"""

import json
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

ROOT = Path(__file__).resolve().parents[2]
BROKER, CACHE, DATABASE = "AMQP_URI", "REDIS_URL", "DATABASE_URL"
OWNER_SUFFIX = "_OWNER_DATABASE_URL"
LONGEST_WAIT = 100.0  # seconds to wait for earlier faults of the same links


class Proxies:
    """All proxies of a sandbox. A link has the name of the variable whose address it replaces."""

    def __init__(self):
        self._process = None
        self._lock = threading.Lock()  # one request to the process at a time
        self._taken = {}  # by link: the lock that its current fault holds
        self.broker, self.cache, self.databases = [], [], []

    def start(self, environment):
        """Start a proxy for each server in `environment`; returns `environment` with the proxies' addresses."""
        self.broker = sorted(name for name in environment if _leads_to(BROKER, name))
        self.cache = sorted(name for name in environment if _leads_to(CACHE, name))
        self.databases = sorted(name for name in environment if _leads_to(DATABASE, name))
        wanted = {name: environment[name] for name in (*self.broker, *self.cache, *self.databases)}
        upstreams = {name: [urlsplit(url).hostname, urlsplit(url).port] for name, url in wanted.items()}
        self._taken = {name: threading.Lock() for name in sorted(wanted)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qa.chaos.proxy_process", json.dumps(upstreams)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # the parent handles Ctrl-C
            text=True,
        )
        ports = self._read()
        return environment | {name: _at_port(url, ports[name]) for name, url in wanted.items()}

    def link(self, service, server):
        """The link of a service to BROKER, CACHE or DATABASE; None where it has none of its own."""
        name = f"{service.upper()}_{server}"
        return name if name in self._taken else None

    @contextmanager
    def fault(self, links, kind, **values):
        """Inject a fault (a class of proxy_faults.py, by its name) into `links` for the duration of the block.

        A link has one fault at a time: the next one waits until the first one ends.
        """
        with ExitStack() as stack:
            for link in sorted(links):
                if not self._taken[link].acquire(timeout=LONGEST_WAIT):
                    raise TimeoutError(f"{link} had other faults for {LONGEST_WAIT:.0f} s")
                stack.callback(self._taken[link].release)
            stack.callback(self._ask, links=links)
            self._ask(links=links, kind=kind, values=values)
            yield

    def hits(self, links):
        """How often the latest fault of these links had an effect: connections cut, stalled, refused ..."""
        return self._ask(links=links, count=True)["hits"]

    def await_hits(self, links, count, seconds):
        """Wait until the fault had an effect `count` times, at most `seconds`; returns the number."""
        deadline = time.monotonic() + seconds
        while (hits := self.hits(links)) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return hits

    def stop(self):
        """End the process; every connection through it breaks."""
        if self._process is None:
            return
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=5)
        self._process.stdout.close()
        self._process = None

    def _ask(self, **request):
        with self._lock:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            return self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the proxy ended (exit code {self._process.wait(timeout=5)})")
        result = json.loads(line)
        if "error" in result:
            raise ValueError(result["error"])
        return result


def _leads_to(server, name):
    """Whether the variable holds an address of this server. Owners' addresses are for migrations only."""
    return (name == server or name.endswith(f"_{server}")) and not name.endswith(OWNER_SUFFIX)


def _at_port(url, port):
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}" if user else f"127.0.0.1:{port}"))
