"""The load generator with a minimal server."""

import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Thread
from uuid import uuid4

import pytest

from qa.bench.orders import Loaded, generate, order_requests, percentile

ORDER = "01890000-0000-7000-8000-000000000000"


@contextmanager
def server(respond):
    """An HTTP server; `respond(path, headers, body)` returns (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = respond(self.path, self.headers, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    Thread(target=made.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()


def test_a_closed_loop_sends_each_request_under_another_key():
    keys = []

    def respond(_path, headers, body):
        keys.append((headers["Idempotency-Key"], headers["Authorization"], body))
        return 201, b'{"id": "%s"}' % ORDER.encode()

    with server(respond) as address:
        requests = order_requests(["a", "b", "c"], {"Authorization": "Bearer me"})
        loaded = generate(address, requests, 0.5, clients=2)
    assert len(keys) > 4
    assert len({key for key, _, _ in keys}) == len(keys) == len(loaded.accept_seconds)
    assert {who for _, who, _ in keys} == {"Bearer me"}
    assert len({body for _, _, body in keys}) == 3  # every pair of products
    assert list(loaded.accepted) == [ORDER]
    assert loaded.cpu_seconds > 0


def test_an_open_loop_continues_while_the_server_stalls():
    began = []

    def respond(_path, _headers, _body):
        began.append(time.time())
        time.sleep(max(0, began[0] + 0.5 - time.time()))
        return 200, b"{}"

    with server(respond) as address:
        loaded = generate(address, [{"method": "GET", "path": "/"}], 1.0, rate=20)
    assert len(loaded.accept_seconds) == 20
    late = [seconds for seconds in loaded.accept_seconds if seconds > 0.2]
    assert 4 <= len(late) <= 15  # those that were due in the first 0.3 of the 0.5 s


def test_an_open_loop_records_the_scheduled_times():
    """A request that is sent late keeps its scheduled time."""
    ids = (f'{{"id": "{uuid4()}"}}'.encode() for _ in range(1000))
    with server(lambda *_: (200, next(ids))) as address:
        loaded = generate(address, [{"method": "GET", "path": "/"}], 0.5, rate=200)
    due = sorted(loaded.accepted.values())
    assert len(due) == 100
    assert [late - early for early, late in pairwise(due)] == pytest.approx([1 / 200] * 99, abs=1e-5)


def test_refusals_are_counted_and_slow_the_client_down():
    with server(lambda *_: (503, b"{}")) as address:
        loaded = generate(address, [{"method": "GET", "path": "/"}], 0.5, clients=1)
    assert 2 <= loaded.refused[503] <= 6
    assert loaded.accept_seconds == []


def test_the_rate_of_settled_orders_includes_the_wait_for_the_last_one():
    loaded = Loaded(began=100.0, ended=110.0, accepted={"a": 100.0, "b": 101.0}, settled={"a": 101.0, "b": 120.0})
    assert loaded.settled_per_second == 2 / 20
    assert loaded.accepted_per_second == 2 / 10
    assert loaded.settle_seconds == [1.0, 19.0]
    assert loaded.lost == 0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 51), (0.99, 100), (0.999, 100), (0.0, 1)])
def test_percentiles(share, expected):
    assert percentile(range(1, 101), share) == expected
