"""A real nginx before the gateway, with the lines of docs/operating.md."""

import os
import re
import signal
import socket
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import eventlet
import httpx
import pytest
from nameko import config

from catalog.service import CatalogService
from contracts.ids import new_id
from deploy.local import install
from deploy.local.process import StartError, kill_tree, spawn
from extensions.http.server import connection
from extensions.http.server.listener import HttpListener
from tests.service.gateway.responses import ok
from tests.support import TEST_TIMEOUT_SECONDS, eventually
from users.service import UsersService

ROOT = Path(__file__).resolve().parents[3]
LINES = re.search(r"```nginx\n(.*?)```", (ROOT / "docs/operating.md").read_text(), re.DOTALL)[1]
MAIN = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
{lines}
}}
"""
CLIENT, OTHER = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module")
def program():
    try:
        install.ensure({"nginx"}, log=ROOT / "var/logs/nginx-install.log", say=print)
    except StartError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"NO TEST WITH NGINX, because it cannot be installed: {error}")
    return install.nginx()


@pytest.fixture
def behind(program, tmp_path):
    """Start nginx before the server at a port: `behind(port)` makes clients, `behind(port)(address)`."""
    started, clients = [], []

    def start(port):
        own = free_port()
        lines = LINES.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("listen 80;", f"listen 127.0.0.1:{own};")
        user = "user root;" if os.geteuid() == 0 else ""
        (tmp_path / "nginx.conf").write_text(MAIN.format(folder=tmp_path, user=user, lines=lines))
        command = [str(program), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
        log = tmp_path / "output"
        process = spawn(command, env=dict(os.environ), log=log, cwd=tmp_path, on_launcher_death=signal.SIGTERM)
        started.append(process)
        eventually(lambda: accepts(own) or process.poll() is not None)
        assert process.poll() is None, log.read_text()

        def client(address=CLIENT):
            transport = httpx.HTTPTransport(local_address=address)
            made = httpx.Client(base_url=f"http://127.0.0.1:{own}", transport=transport, timeout=TEST_TIMEOUT_SECONDS)
            clients.append(made)
            return made

        return client

    yield start
    for client in clients:
        client.close()
    for process in started:
        kill_tree(process.pid)
        process.wait()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def accepts(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def services():
    services = Mock()
    services.users.list_changed = lambda **_asked: {"items": []}
    services.catalog.list_products = lambda **_asked: {"items": [{"name": "Çay"}] * 50, "next_cursor": None}
    return services


@pytest.fixture
def shop(gateway, services, behind):
    """Start a gateway with some settings, and nginx before it. Returns the function that makes clients."""

    def start(**settings):
        with config.patch({"TRUSTED_PROXIES": ["127.0.0.1"], **settings}):
            api = gateway(services=services)
        eventually(lambda: api.get("/users/me").status_code == 401)
        return behind(api.base_url.port)

    return start


def limited(per_address):
    off = {"per_user": "off", "per_address": per_address, "login": "off", "register": "off"}
    return {"RATE_LIMITS": {"elsewhere": off, "production": off}}


def test_each_client_has_its_own_limit(shop):
    client = shop(**limited("3/3600"))
    one, other = client(CLIENT), client(OTHER)
    claims = ({}, {"X-Forwarded-For": "203.0.113.7"}, {"Forwarded": "for=203.0.113.8"})
    assert [one.get("/users/me", headers=claim).status_code for claim in claims] == [401] * 3
    refused = [one.get("/users/me", headers=claim) for claim in claims]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(429, "RATE_LIMITED")] * 3
    assert other.get("/users/me").status_code == 401


def test_a_compressed_resource_is_changed_only_as_it_was_seen(gateway, behind, run_service, login):
    run_service(CatalogService)
    run_service(UsersService)
    http = behind(gateway().base_url.port)()
    eventually(lambda: http.get("/users/me").status_code == 401)
    admin = {**login("customer", "admin"), "Accept-Encoding": "gzip"}
    body = {"sku": "A-1", "name": "Çay", "price": "9.90", "description": "x" * 500}
    path = http.post("/products", json=body, headers=admin).headers["location"]
    seen = http.get(path, headers=admin)
    tag = seen.headers["etag"]
    assert (seen.headers["content-encoding"], tag[:3], ok(seen)["sku"]) == ("gzip", 'W/"', "A-1")
    assert http.get(path, headers={"If-None-Match": tag}).status_code == 304
    change = {"json": {"price": "8.00"}, "headers": {**admin, "If-Match": tag}}
    assert http.patch(path, **change).status_code == 200
    refused = http.patch(path, **change)
    assert (refused.status_code, refused.json()["code"]) == (412, "PRECONDITION_FAILED")


def test_a_body_that_is_too_large_is_refused_by_the_gateway(shop):
    http = shop()()
    for body in (b" " * 100_000, iter([b" " * 50_000] * 2)):
        refused = http.post("/users/login", content=body, headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert http.get("/products").status_code == 200
    assert http.post("/users/login", content=b" " * 2_000_000).status_code == 413


def test_a_slow_service_is_504_of_the_gateway(shop, services):
    services.catalog.list_products = lambda **_asked: eventlet.sleep(3)
    refused = shop(HTTP_DEADLINE_SECONDS=0.5)().get("/products")
    assert (refused.status_code, refused.json()["code"]) == (504, "UPSTREAM_TIMEOUT")
    seconds = int(re.search(r"proxy_read_timeout (\d+)s", LINES)[1])
    assert seconds > config["HTTP_DEADLINE_SECONDS"]


def test_connections_are_used_again(shop, monkeypatch):
    accepted, serve = [], HttpListener._serve_in_background

    def count(listener, sock):
        accepted.append(sock)
        serve(listener, sock)

    http = shop()()
    monkeypatch.setattr(HttpListener, "_serve_in_background", count)
    for _ in range(20):
        assert http.get("/products").status_code == 200
    assert len(accepted) <= 2
    assert int(re.search(r"keepalive_timeout (\d+)s", LINES)[1]) < connection.IDLE_SECONDS


def test_a_stream_arrives_piece_by_piece(behind):
    with streaming() as (port, go_on), behind(port)().stream("GET", "/notifications/stream") as response:
        pieces = response.iter_text()
        assert next(pieces) == "data: 1\n\n"
        go_on.send()
        assert next(pieces) == "data: 2\n\n"


@contextmanager
def streaming():
    """A server whose response has two events; the second one is sent after a signal."""
    listener, go_on = eventlet.listen(("127.0.0.1", 0)), eventlet.Event()

    def serve():
        while True:
            sock, _ = listener.accept()
            if not sock.recv(4096):
                continue
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
            go_on.wait()
            sock.sendall(b"data: 2\n\n")
            sock.close()

    server = eventlet.spawn(serve)
    try:
        yield listener.getsockname()[1], go_on
    finally:
        server.kill()
        listener.close()


def test_events_of_a_stream_pass_at_once(shop, services, login):
    entry = {"event": "order.created", "event_id": str(new_id()), "service": "orders", "at": "2026-11-22T09:30:00Z"}
    services.orders.get_timeline = lambda **_asked: {"items": [entry | {"data": {}}]}
    services.orders.get_timelines = lambda **_asked: {"items": [], "is_complete": True}
    client, seen = shop()(CLIENT), []
    with client.stream("GET", f"/orders/{new_id()}/events", headers=login("customer")) as response:
        for line in response.iter_lines():
            seen.append(line)
            if line.startswith("data: ") and "order.created" in line:
                break
    assert "id: 1" in seen
