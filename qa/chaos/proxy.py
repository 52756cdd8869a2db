"""A TCP proxy between the services and their servers, and what can be made to go wrong in it.

    proxies = Proxies()
    environment = proxies.start(servers.addresses())      # the same variables, with the proxies' addresses
    with proxies.fault(proxies.databases, "stall"):
        ...                                                # healed at the end of the block, whatever happens in it
    proxies.stop()

The bytes flow through a process of its own (proxy_process.py), so that it works the same in a green process like
pytest's. It ends with the process that started it. One proxy for the broker, one for the cache, and one for each
service's database, so that a single service can be cut off.
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
BROKER, CACHE = "AMQP_URI", "REDIS_URL"
DATABASE_SUFFIX, OWNER_SUFFIX = "_DATABASE_URL", "_OWNER_DATABASE_URL"
LONGEST_WAIT = 100.0  # seconds until earlier faults of the same links have healed


class Proxies:
    """All proxies of an arena. A link is named after the variable whose address it took over."""

    def __init__(self):
        self._process = None
        self._lock = threading.Lock()  # one question at a time
        self._taken = {}  # for each link the lock of the fault that it has now
        self.broker, self.cache, self.databases = [BROKER], [CACHE], []

    def start(self, environment):
        """Start a proxy before each server named in `environment`; returns it with the proxies' addresses."""
        wanted = {name: url for name, url in environment.items() if name in {BROKER, CACHE} or _is_database(name)}
        self.databases = sorted(filter(_is_database, wanted))
        upstreams = {name: [urlsplit(url).hostname, urlsplit(url).port] for name, url in wanted.items()}
        self._taken = {name: threading.Lock() for name in sorted(wanted)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qa.chaos.proxy_process", json.dumps(upstreams)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is its parent's to handle
            text=True,
        )
        ports = self._read()
        # The services' own users come by the same proxy.
        own = {
            name: _at_port(url, ports[server])
            for server in {BROKER, CACHE} & set(ports)
            for name, url in environment.items()
            if name.endswith(f"_{server}")
        }
        return environment | own | {name: _at_port(url, ports[name]) for name, url in wanted.items()}

    @contextmanager
    def fault(self, links, kind, **values):
        """Inject a fault (a class of proxy_process.py, by its name) into `links` for as long as the block lasts.

        A link has one fault at a time: the next one waits for it, and its block begins later.
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
        """How often the latest fault of these links struck: connections cut, stalled, refused ..."""
        return self._ask(links=links, count=True)["hits"]

    def await_hits(self, links, count, seconds):
        """Wait until the fault struck `count` times; returns how often it did within `seconds`."""
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

    def _ask(self, **question):
        with self._lock:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            return self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the proxy ended (exit code {self._process.wait(timeout=5)})")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer


def _is_database(name):
    """Tell whether it is a service's; owners only migrate."""
    return name.endswith(DATABASE_SUFFIX) and not name.endswith(OWNER_SUFFIX)


def _at_port(url, port):
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}" if user else f"127.0.0.1:{port}"))
