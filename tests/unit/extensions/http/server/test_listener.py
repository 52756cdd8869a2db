"""The HTTP entrypoint in a real container, over real sockets: no broker, no database."""

import json
import logging
import socket
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import eventlet
import httpx
import nameko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nameko.containers import ServiceContainer

from contracts.catalog import CreateProduct, ProductFilter
from contracts.errors import Overloaded, ServiceUnavailable
from contracts.orders import OrderNotFound
from extensions.http.message.request import Access
from extensions.http.message.response import Response
from extensions.http.routing import dispatcher as dispatcher_module
from extensions.http.routing.authentication import AccessTokens
from extensions.http.routing.dispatcher import HttpServer
from extensions.http.routing.route import route
from extensions.http.server import connection as connection_module
from extensions.http.server import listener as listener_module
from extensions.observability.traces import current_trace
from tests.stopwatch import Stopwatch
from tests.support import eventually, stated

ID = "0190a6b2-0000-7000-8000-000000000001"
POST = b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
MEETING = 100  # more than the services have workers
PRODUCT = {"sku": "A-1", "name": "Çay", "price": "9.90"}


class SmallService:
    name = "small"
    calls = ()

    @route("GET", "/things", access=Access.ANYONE, query=ProductFilter)
    def things(self, request):
        return {"items": [stated(request.query)], "next_cursor": "c1" if request.query.cursor is None else None}

    @route("GET", "/things/{thing_id}", access=Access.ANYONE)
    def thing(self, _request, thing_id):
        raise OrderNotFound(f"no {thing_id}")

    @route("POST", "/things", access=Access.ANYONE, body=CreateProduct, status=201, idempotent=True)
    def create(self, request):
        body = {"body": stated(request.body), "key": request.idempotency_key}
        return Response(body, headers={"Location": f"/things/{ID}"})

    @route("POST", "/things/{thing_id}/read", access=Access.ANYONE, status=204)
    def read(self, _request, thing_id):
        assert str(thing_id) == ID

    @route("GET", "/boom", access=Access.ANYONE)
    def boom(self, _request):
        raise RuntimeError("password=hunter2")

    @route("GET", "/sleep", access=Access.ANYONE)
    def sleep(self, _request):
        eventlet.sleep(0.3)
        return {"slept": True}

    @route("GET", "/hang", access=Access.ANYONE)
    def hang(self, _request):
        eventlet.sleep(2)

    @route("GET", "/meet", access=Access.ANYONE)
    def meet(self, _request):
        self.calls.append(time.monotonic())
        while len(self.calls) < MEETING:
            eventlet.sleep(0.01)

    @route("GET", "/hash", access=Access.ANYONE, compute_heavy=True)
    def hash(self, _request):
        eventlet.sleep(2)

    @route("GET", "/trace", access=Access.ANYONE)
    def trace(self, _request):
        trace = current_trace()
        waited = trace.redis_wait.seconds
        return {"id": trace.request_id, "traceparent": trace.traceparent, "left": trace.remaining(60), "waited": waited}

    @route("GET", "/down", access=Access.ANYONE)
    def down(self, _request):
        raise ServiceUnavailable(retry_after=3)

    @route("GET", "/full", access=Access.ANYONE)
    def full(self, _request):
        self.calls.append(time.monotonic())
        raise Overloaded("Too many orders wait.", retry_after=1)

    @route("GET", "/probe", access=Access.ANYONE, shared_for=0.2)
    def probe(self, _request):
        return {"status": "ok"}

    @route("GET", "/report", access=Access.ANYONE, shared_for=0.2)
    def report(self, _request):
        self.calls.append(time.monotonic())
        eventlet.sleep(0.6)  # all requests of the test arrive meanwhile
        raise ServiceUnavailable("The database is down.")

    @route("GET", "/mine", access=Access.USER)
    def mine(self, _request):
        return {}

    @route("POST", "/secret/{thing_id}", access=Access.ADMIN, body=CreateProduct)
    def secret(self, _request, thing_id):
        return {"id": str(thing_id)}


@contextmanager
def serving(tmp_path, **settings):
    key = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(key)
    settings = {
        "JWT_PUBLIC_KEY_FILE": str(tmp_path / "public.pem"),
        "WEB_SERVER_ADDRESS": "127.0.0.1:0",
        "HTTP_DEADLINE_SECONDS": 1.0,
        "HTTP_MAX_BODY_BYTES": 2000,
    } | settings
    with nameko.config.patch(settings):
        container = ServiceContainer(SmallService)
        container.start()
        container.port = container.shared_extensions[HttpServer].port
        container.shared_extensions[AccessTokens].verified.caught_up = True  # there is no users service
        try:
            yield container
        finally:
            container.stop()


@pytest.fixture
def small(tmp_path):
    with serving(tmp_path) as container:
        yield container


@pytest.fixture
def client(small):
    with httpx.Client(base_url=f"http://127.0.0.1:{small.port}", timeout=5, verify=False) as client:
        yield client


@pytest.fixture
def raw(small):
    """Send bytes, and return everything that the server sends until it closes the connection."""

    def send(data, *, then_stop=True):
        with socket.create_connection(("127.0.0.1", small.port), timeout=5) as sock:
            sock.sendall(data)
            if then_stop:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    return send


def get(url):
    """A request on a new connection, without loading TLS certificates, which takes longer than the measured times."""
    return httpx.get(url, timeout=5, verify=False)


def sockets_of(port):
    """The number of open sockets of this process on a local port."""
    own = {link.readlink().name for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    table = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and f"socket:[{row[9]}]" in own for row in table)


def read_all(sock):
    received = b""
    while piece := sock.recv(65536):
        received += piece
    return received


def assert_problem(response, status, code):
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert response.json()["request_id"] == response.headers["x-request-id"]


class TestResponses:
    def test_a_resource(self, client):
        response = client.post("/things", json=PRODUCT, headers={"Idempotency-Key": "k-1"})
        assert response.status_code == 201
        assert response.json() == {"body": PRODUCT, "key": "k-1"}
        assert response.headers["location"] == f"/things/{ID}"
        assert response.headers["content-type"] == "application/json"

    def test_no_content(self, client):
        response = client.post(f"/things/{ID}/read")
        assert (response.status_code, response.content) == (204, b"")
        assert "content-type" not in response.headers
        assert "content-length" not in response.headers

    def test_a_page_links_to_the_next(self, client):
        first = client.get("/things/?limit=1&sort=name")
        assert first.links["next"]["url"] == "/things/?limit=1&sort=name&cursor=c1"
        assert "link" not in client.get(first.links["next"]["url"]).headers

    def test_head_is_get_without_its_body(self, client):
        got, head = client.get("/things"), client.head("/things")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
        assert client.head("/nowhere").status_code == 404

    def test_options(self, client):
        response = client.options("/things")
        assert (response.status_code, response.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")

    def test_browsers_may_call_from_any_origin_by_default(self, client):
        headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        preflight = client.options("/things", headers=headers)
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        for response in (preflight, client.get("/things"), client.get("/nowhere")):
            assert response.headers["access-control-allow-origin"] == "*"
            assert "ETag" in response.headers["access-control-expose-headers"]

    def test_browsers_may_call_from_the_configured_origins(self, tmp_path):
        shop = "https://shop.example"
        with serving(
            tmp_path,
            ENVIRONMENT="production",
            REDIS_URL="redis://:not-the-one-of-development@127.0.0.1:1/0",
            CORS_ORIGINS={"production": f"{shop}, https://b.example"},
        ) as it:
            url = f"http://127.0.0.1:{it.port}/things"
            for origin, allowed in ((shop, shop), ("https://evil.example", None)):
                headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
                for response in (
                    httpx.options(url, headers=headers, verify=False),
                    httpx.get(url, headers=headers, verify=False),
                ):
                    assert response.headers.get("access-control-allow-origin") == allowed
                    assert response.headers["vary"] == "Origin"
                assert (
                    "access-control-allow-methods" in httpx.options(url, headers=headers, verify=False).headers
                ) is bool(allowed)

    def test_the_request_id_of_the_caller_is_used_if_it_is_valid(self, client):
        assert client.get("/trace", headers={"X-Request-ID": "my-id.7"}).headers["x-request-id"] == "my-id.7"
        for invalid in ("two words", "x" * 200, "<script>"):
            assert client.get("/trace", headers={"X-Request-ID": invalid}).headers["x-request-id"] != invalid

    def test_the_worker_continues_the_trace_within_the_deadline(self, client):
        trace_id = "0af7651916cd43dd8448eb211c80319c"
        headers = {"X-Request-ID": "r1", "traceparent": f"00-{trace_id}-b7ad6b7169203331-01", "X-Redis-Wait-Ms": "9"}
        seen = client.get("/trace", headers=headers).json()
        assert seen["id"] == "r1"
        assert seen["traceparent"].split("-")[1] == trace_id
        assert 0.5 < seen["left"] <= 1.0
        assert seen["waited"] == 0.0  # no client decides whether Redis is asked

    def test_every_request_is_logged_once(self, client, caplog):
        with caplog.at_level(logging.INFO, logger="gateway.access"):
            client.get("/things/?limit=1")
            client.get("/nowhere")
        lines = [record.getMessage() for record in caplog.records if record.name == "gateway.access"]
        assert [line.split()[:3] for line in lines] == [["GET", "/things/", "200"], ["GET", "/nowhere", "404"]]


class TestProblems:
    def test_unknown_path(self, client):
        response = client.get("/nowhere")
        assert_problem(response, 404, "NOT_FOUND")
        assert response.json()["instance"] == "/nowhere"

    def test_wrong_method(self, client):
        response = client.delete("/things")
        assert_problem(response, 405, "METHOD_NOT_ALLOWED")
        assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"

    def test_an_error_of_a_handler(self, client):
        assert_problem(client.get(f"/things/{ID}"), 404, "ORDER_NOT_FOUND")
        response = client.get("/down")
        assert_problem(response, 503, "SERVICE_UNAVAILABLE")
        assert response.headers["retry-after"] == "3"

    def test_a_defect_of_a_handler_is_logged_and_not_revealed(self, client, caplog):
        response = client.get("/boom")
        assert_problem(response, 500, "INTERNAL_ERROR")
        assert "hunter2" not in response.text
        assert "Traceback" not in response.text
        assert "hunter2" in caplog.text

    def test_a_defect_of_the_http_layer_is_a_500_too(self, client, monkeypatch):
        monkeypatch.setattr("extensions.http.message.request.parse_query", lambda _: 1 / 0)
        assert_problem(client.get("/things?limit=1"), 500, "INTERNAL_ERROR")
        assert client.get("/things").status_code == 200

    @pytest.mark.parametrize(
        ("body", "kind", "status", "code"),
        [
            (b"{", "application/json", 400, "MALFORMED_JSON"),
            (b"", "application/json", 400, "MALFORMED_JSON"),
            (b"[]", "application/json", 400, "VALIDATION_ERROR"),
            (b"[" * 1999, "application/json", 400, "MALFORMED_JSON"),
            (b"{}", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
            (b"{}", "", 415, "UNSUPPORTED_MEDIA_TYPE"),
            (b" " * 2001, "application/json", 413, "PAYLOAD_TOO_LARGE"),
        ],
    )
    def test_bodies(self, client, body, kind, status, code):
        assert_problem(client.post("/things", content=body, headers={"Content-Type": kind}), status, code)

    def test_every_invalid_field_is_named(self, client):
        response = client.post("/things", json={"sku": "!", "price": 9.9, "colour": "red"})
        assert_problem(response, 400, "VALIDATION_ERROR")
        assert {error["field"] for error in response.json()["errors"]} == {"sku", "name", "price", "colour"}

    def test_a_path_that_is_no_id(self, client):
        response = client.get("/things/42")
        assert_problem(response, 400, "VALIDATION_ERROR")
        assert response.json()["errors"] == [{"field": "thing_id", "message": "must be a UUID"}]

    def test_unknown_query_parameters(self, client):
        assert_problem(client.get("/things?colour=red"), 400, "VALIDATION_ERROR")
        assert_problem(client.get("/probe?colour=red"), 400, "VALIDATION_ERROR")

    def test_a_route_without_body_accepts_an_empty_object(self, client):
        assert client.post(f"/things/{ID}/read", json={}).status_code == 204
        assert_problem(client.post(f"/things/{ID}/read", json={"a": 1}), 400, "VALIDATION_ERROR")

    def test_not_acceptable(self, client):
        assert_problem(client.get("/things", headers={"Accept": "text/html"}), 406, "NOT_ACCEPTABLE")

    def test_authentication_comes_before_validation(self, client):
        response = client.post("/secret/42?x=1", content=b"{", headers={"Accept": "text/html"})
        assert_problem(response, 401, "NOT_AUTHENTICATED")
        assert response.headers["www-authenticate"] == "Bearer"
        assert_problem(client.get("/mine", headers={"Authorization": "Bearer x.y.z"}), 401, "INVALID_TOKEN")


class TestTime:
    def test_a_handler_that_exceeds_the_deadline_is_504(self, client):
        started = Stopwatch()
        assert_problem(client.get("/hang"), 504, "UPSTREAM_TIMEOUT")
        assert started.wall > 0.9
        assert started.seconds < 1.5

    def test_a_request_waits_for_no_other(self, tmp_path, monkeypatch):
        """Each request has a worker of its own, and waits only for what it calls."""
        monkeypatch.setattr(SmallService, "calls", [])
        request = b"GET /meet HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with serving(tmp_path, HTTP_DEADLINE_SECONDS=60) as small, ExitStack() as held:
            clients = [socket.create_connection(("127.0.0.1", small.port), timeout=60) for _ in range(MEETING)]
            for client in clients:
                held.enter_context(client).sendall(request)
            assert all(b" 200 " in read_all(client) for client in clients)

    def test_waiting_for_a_compute_heavy_worker_counts_against_the_deadline(self, tmp_path, monkeypatch):
        monkeypatch.setattr(dispatcher_module, "COMPUTE_HEAVY_WORKERS", 1)
        with serving(tmp_path, HTTP_DEADLINE_SECONDS=0.4) as small:
            url = f"http://127.0.0.1:{small.port}"
            pool = eventlet.GreenPool(3)
            started = Stopwatch()
            codes = sorted(pool.imap(lambda _: get(f"{url}/hash").status_code, range(3)))
            assert codes == [503, 503, 504]
            assert started.seconds < 1

    def test_a_request_without_a_free_worker_is_refused_and_never_blocks_its_connection(self, small, client):
        """The bulkheads leave workers free. If that is ever wrong, no greenlet that reads a socket waits in spawn."""
        pool = small._worker_pool
        busy = [pool.spawn(eventlet.sleep, 60) for _ in range(pool.free())]
        refused = client.get("/trace")
        assert_problem(refused, 503, "SERVICE_UNAVAILABLE")
        assert client.get("/nowhere").status_code == 404  # on the same connection
        for one in busy:
            one.kill()
        assert client.get("/trace").status_code == 200

    def test_probes_are_served_while_all_workers_are_busy(self, tmp_path):
        with serving(tmp_path, HTTP_MAX_REQUESTS=1) as small:
            url = f"http://127.0.0.1:{small.port}"
            busy = [eventlet.spawn(get, f"{url}/sleep") for _ in range(6)]
            eventlet.sleep(0.1)
            started = Stopwatch()
            assert get(f"{url}/probe").status_code == 200
            assert started.seconds < 0.15
            for request in busy:
                request.kill()

    def test_a_shared_response_is_made_once_for_all_concurrent_requests(self, client, small, monkeypatch):
        monkeypatch.setattr(SmallService, "calls", [])
        url = f"http://127.0.0.1:{small.port}/report"
        requests = [eventlet.spawn(get, url) for _ in range(30)]
        eventually(lambda: len(SmallService.calls) == 1)
        assert client.get("/probe").status_code == 200  # other shared responses are not delayed
        for request in requests:
            assert_problem(request.wait(), 503, "SERVICE_UNAVAILABLE")
            assert request.wait().json()["detail"] == "The database is down."
        assert len(SmallService.calls) == 1
        assert len({request.wait().headers["x-request-id"] for request in requests}) == 30
        eventually(lambda: get(url) and len(SmallService.calls) == 2, timeout=3)

    def test_overload_is_refused_immediately(self, tmp_path):
        with serving(tmp_path, HTTP_MAX_REQUESTS=2) as small:
            url = f"http://127.0.0.1:{small.port}"
            busy = [eventlet.spawn(get, f"{url}/sleep") for _ in range(2)]
            eventlet.sleep(0.15)
            started = Stopwatch()
            refused = get(f"{url}/sleep")
            assert started.seconds < 0.2
            assert_problem(refused, 503, "SERVICE_UNAVAILABLE")
            assert refused.headers["retry-after"] == "1"
            assert get(f"{url}/probe").status_code == 200
            assert [request.wait().status_code for request in busy] == [200, 200]
            assert get(f"{url}/sleep").status_code == 200

    def test_an_overloaded_service_is_not_called_before_its_retry_after(self, client, monkeypatch):
        monkeypatch.setattr(SmallService, "calls", [])
        responses = [client.get("/full") for _ in range(20)]
        for response in responses:
            assert_problem(response, 503, "SERVICE_UNAVAILABLE")
            assert (response.json()["detail"], response.headers["retry-after"]) == ("Too many orders wait.", "1")
        assert client.get("/trace").status_code == 200  # other routes are not affected
        assert len(SmallService.calls) == 1
        eventually(lambda: client.get("/full") and len(SmallService.calls) == 2, timeout=3)
        assert SmallService.calls[1] - SmallService.calls[0] >= 1

    def test_a_slow_head_is_dropped(self, small, monkeypatch):
        monkeypatch.setattr(connection_module, "REQUEST_SECONDS", 0.3)
        with socket.create_connection(("127.0.0.1", small.port), timeout=5) as sock:
            started = Stopwatch()
            for piece in b"GET /probe":
                sock.sendall(bytes([piece]))
                eventlet.sleep(0.02)
            assert b" 408 " in read_all(sock)
            assert started.seconds < 3  # including LINGER_SECONDS, in which late bytes are read

    def test_a_slow_body_is_dropped(self, small, monkeypatch):
        monkeypatch.setattr(connection_module, "REQUEST_SECONDS", 0.3)
        monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.1)
        head = POST + b"Content-Length: 50\r\n\r\n{"
        with socket.create_connection(("127.0.0.1", small.port), timeout=5) as sock:
            sock.sendall(head)
            received = read_all(sock)
        assert b" 408 " in received
        assert b'"code":"REQUEST_TIMEOUT"' in received

    @pytest.mark.parametrize("setting", ["REQUEST_SECONDS", "IDLE_SECONDS"])
    def test_a_silent_connection_is_closed(self, small, monkeypatch, setting):
        monkeypatch.setattr(listener_module, setting, 0.2)
        with socket.create_connection(("127.0.0.1", small.port), timeout=5) as sock:
            if setting == "IDLE_SECONDS":
                sock.sendall(b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_all(sock).count(b"HTTP/1.1") == (setting == "IDLE_SECONDS")


class TestHttp11:
    def test_a_connection_serves_several_requests(self, raw):
        request = POST + b"Content-Length: %d\r\n\r\n%s"
        body = json.dumps(PRODUCT).encode()
        received = raw(
            (request % (len(body), body)) * 2 + b"GET /probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert received.count(b"HTTP/1.1 201 Created") == 2
        assert received.count(b"HTTP/1.1 200 OK") == 1
        assert received.count(b"Connection: keep-alive") == 2
        assert received.count(b"Connection: close") == 1

    def test_an_unread_body_does_not_disturb_the_next_request(self, raw):
        refused = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde"
        received = raw(refused + b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received.count(b" 404 ") == 1
        assert received.count(b" 200 ") == 1

    def test_chunked_bodies(self, raw):
        head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        body = json.dumps(PRODUCT).encode()
        chunks = b"%x;note=1\r\n%s\r\n%x\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
        received = raw(head + chunks + b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 201 " in received
        assert b" 200 " in received

    @pytest.mark.parametrize("framing", [b"Content-Length: 0\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
    def test_an_empty_body_needs_no_type(self, raw, framing):
        head = b"POST /things/%s/read HTTP/1.1\r\nHost: x\r\n" % ID.encode()
        assert b" 204 " in raw(head + framing)

    def test_a_chunked_body_needs_a_type(self, raw):
        head = b"POST /things HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        assert b" 415 " in raw(head + b"\r\n2\r\n{}\r\n0\r\n\r\n")
        assert b" 415 " in raw(head + b"Content-Type: text/plain\r\n\r\n2\r\n{}\r\n0\r\n\r\n")

    @pytest.mark.parametrize(
        ("chunks", "status"),
        [
            (b"7d1\r\n", b" 413 "),
            (b"ffffffff\r\n", b" 413 "),
            (b"3e8\r\n" + b" " * 1000 + b"\r\n" + b"3e9\r\n", b" 413 "),
            (b"xyz\r\n", b" 400 "),
            (b"-1\r\n", b" 400 "),
            (b"fffffffffffffffff\r\n", b" 400 "),
            (b"2\r\n{}{}\r\n", b" 400 "),
        ],
    )
    def test_invalid_chunked_bodies_are_refused(self, raw, chunks, status):
        head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        assert status in raw(head + chunks)

    def test_a_huge_body_is_refused_before_it_is_sent(self, raw):
        head = POST + b"Content-Length: 60000000\r\n\r\n"
        assert b" 413 " in raw(head)

    def test_a_client_that_continues_to_send_still_receives_the_refusal(self, raw):
        assert b" 413 " in raw(POST + b"Content-Length: 5000000\r\n\r\n" + b" " * 5_000_000)

    def test_expect_100_continue(self, small):
        body = json.dumps(PRODUCT).encode()
        head = POST.replace(b"/things", b"%s") + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n"
        with socket.create_connection(("127.0.0.1", small.port), timeout=5) as sock:
            sock.sendall(head % (b"/things", len(body)))
            assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(body)
            assert b" 201 " in sock.recv(1000)
            sock.sendall(head % (b"/nowhere", len(body)))
            received = read_all(sock)
        assert b" 404 " in received
        assert b"100 Continue" not in received

    @pytest.mark.parametrize(
        "head",
        [
            b"hello\r\n\r\n",
            b"GET /probe\r\n\r\n",
            b"GET /probe HTTP/2.0\r\nHost: x\r\n\r\n",
            b"GET /pro be HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /\xc3\xa7ay HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /probe HTTP/1.1\r\n\r\n",
            b"GET /probe HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            b"GET /probe HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
            b"GET /probe HTTP/1.1\r\nHost: x\r\nName : y\r\n\r\n",
            b"GET /probe HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
            b"GET /probe HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
            b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
            b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
            b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST /things HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"POST /things HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /probe HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 9000 + b"\r\n\r\n",
            b"GET /probe HTTP/1.1\r\nHost: x\r\n" + b"A: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n" * 2000 + b"\r\n",
        ],
    )
    def test_a_malformed_request_is_refused_and_the_connection_closed(self, raw, head):
        received = raw(head + b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 400 ")
        assert received.count(b"HTTP/1.1 ") == 1
        assert json.loads(received.partition(b"\r\n\r\n")[2])["code"] == "VALIDATION_ERROR"

    def test_absolute_targets_and_http_1_0(self, raw):
        assert b" 200 " in raw(b"GET http://shop.example/probe HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        assert b"Connection: close" in raw(b"GET /probe HTTP/1.0\r\n\r\n", then_stop=False)
        assert raw(b"GET /probe HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2).count(b" 200 ") == 2

    def test_clients_that_disconnect_do_not_affect_others(self, small, client):
        for data in (
            b"",
            b"GET",
            b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
            b"\x16\x03\x01\x02",
        ):
            with socket.create_connection(("127.0.0.1", small.port), timeout=5) as sock:
                sock.sendall(data)
        assert client.get("/probe").status_code == 200


class TestConnections:
    def test_lingering_connections_count_and_can_be_evicted(self, small, monkeypatch):
        """Each client gets its 400 and stays connected: it counts until its socket is closed."""
        listener = small.shared_extensions[HttpServer]._listener
        monkeypatch.setattr(listener.open, "max_connections", 5)
        lingering = []
        for _ in range(20):
            lingering.append(socket.create_connection(("127.0.0.1", small.port), timeout=5))
            lingering[-1].sendall(b"GET x\r\n\r\n")
        assert b" 400 " in lingering[-1].recv(1000)
        assert len(listener.open) <= 5
        assert sockets_of(small.port) <= 5 + 1  # and the listening socket
        assert get(f"http://127.0.0.1:{small.port}/probe").status_code == 200
        for sock in lingering:
            sock.close()

    def test_the_longest_idle_connection_is_evicted_for_a_new_one(self, small, monkeypatch):
        monkeypatch.setattr(small.shared_extensions[HttpServer]._listener.open, "max_connections", 3)
        address = ("127.0.0.1", small.port)
        idle = []
        for _ in range(3):
            sock = socket.create_connection(address, timeout=5)
            sock.sendall(b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in sock.recv(1000)
            idle.append(sock)
        assert get(f"http://127.0.0.1:{small.port}/probe").status_code == 200
        assert idle[0].recv(1) == b""
        idle[2].sendall(b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in idle[2].recv(1000)
        for sock in idle:
            sock.close()

    def test_a_stop_finishes_requests_in_flight_and_accepts_no_connections(self, small):
        url = f"http://127.0.0.1:{small.port}"
        in_flight = eventlet.spawn(get, f"{url}/sleep")
        eventlet.sleep(0.1)
        idle = socket.create_connection(("127.0.0.1", small.port), timeout=5)
        stopping = eventlet.spawn(small.stop)
        eventlet.sleep(0.1)
        late = b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n"
        idle.sendall(late)  # on a connection from before the stop
        received = read_all(idle)
        with pytest.raises(httpx.ConnectError):
            get(f"{url}/probe")
        assert b" 200 " in received
        assert b"Connection: close" in received
        assert in_flight.wait().status_code == 200
        stopping.wait()

    def test_a_stop_serves_the_connections_in_the_backlog(self, small):
        blocking = eventlet.patcher.original("socket")  # does not switch to the server while it connects
        waiting = [blocking.create_connection(("127.0.0.1", small.port), timeout=5) for _ in range(20)]
        for sock in waiting:
            sock.sendall(b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n")
        small.shared_extensions[HttpServer].finish()
        assert [b" 200 " in sock.recv(1000) for sock in waiting] == [True] * 20
        for sock in waiting:
            sock.close()

    def test_no_client_connects_between_the_last_accept_and_the_close(self, small, monkeypatch):
        blocking, outcome, port = eventlet.patcher.original("socket"), [], small.port
        accept_backlog = listener_module.HttpListener._accept_backlog

        def then_connect(listener):
            accept_backlog(listener)
            try:
                blocking.create_connection(("127.0.0.1", port), timeout=0.2).close()
            except TimeoutError:  # the kernel would retry, and find the port closed
                outcome.append("not connected")
            else:
                outcome.append("connected, and reset by the close")

        monkeypatch.setattr(listener_module.HttpListener, "_accept_backlog", then_connect)
        small.shared_extensions[HttpServer].finish()
        assert outcome == ["not connected"]

    def test_a_stop_does_not_wait_for_idle_connections(self, small):
        idle = socket.create_connection(("127.0.0.1", small.port), timeout=5)
        idle.sendall(b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in idle.recv(1000)
        started = Stopwatch()
        small.stop()
        assert started.seconds < 1
        assert idle.recv(1) == b""
