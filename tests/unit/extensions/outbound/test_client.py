"""Requests to real local servers: what is connected to, sent and read, and when it ends."""

import socket
import ssl
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import eventlet
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from extensions.outbound import client
from extensions.outbound.client import MAX_KEPT, Outbound
from extensions.outbound.resolver import DnsResolver
from extensions.outbound.results import HostUnknown, RequestFailed, RequestTimeout
from extensions.outbound.targets import TargetRefused

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LOCAL = ip_address("127.0.0.1")


class Server:
    """Accepts connections on loopback, and handles each with `handle(connection)`. `requests` has what was sent."""

    def __init__(self, handle, tls=None):
        self._socket = eventlet.listen(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.requests, self.names, self.connections = [], [], 0
        self._handle, self._tls = handle, tls
        self._greenlets = [eventlet.spawn(self._accept)]

    def _accept(self):
        while True:
            connection, _ = self._socket.accept()
            self.connections += 1
            self._greenlets.append(eventlet.spawn(self._serve, connection))

    def _serve(self, connection):
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65_536)
            self.requests.append(request)
            self._handle(connection)
        except OSError:
            pass
        finally:
            connection.close()

    def stop(self):
        for greenlet in self._greenlets:
            greenlet.kill()
        self._socket.close()


@contextmanager
def serving(handle, tls=None):
    server = Server(handle, tls)
    try:
        yield server
    finally:
        server.stop()


def sends(*parts, pause=0.0, end=True):
    """Return a handler that sends these bytes, and then hangs unless `end`."""

    def handle(connection):
        for part in parts:
            connection.sendall(part)
            eventlet.sleep(pause)
        if not end:
            eventlet.sleep(600)

    return handle


def drips(first, piece=b"x"):
    """Return a handler that sends `first`, and then `piece` over and over."""

    def handle(connection):
        connection.sendall(first)
        while True:
            connection.sendall(piece)
            eventlet.sleep(0.01)

    return handle


def floods(first):
    def handle(connection):
        connection.sendall(first)
        while True:
            connection.sendall(b"x" * 65_536)

    return handle


def post(server, path="/hook", seconds=10.0, **options):
    outbound = Outbound(allow_loopback=True, **options)
    return outbound.post(f"http://127.0.0.1:{server.port}{path}", {"X-One": "1"}, b"{}", seconds)


def test_a_request_and_its_response():
    with serving(sends(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nwait")) as server:
        response = post(server, "/hook?a=b")
    assert (response.status, response.body, response.retry_after) == (429, b"wait", "7")
    head = server.requests[0].decode()
    assert head.startswith("POST /hook?a=b HTTP/1.1\r\n")
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n" in head
    for line in ("X-One: 1", "Content-Length: 2", "Connection: close", "Accept-Encoding: identity"):
        assert f"\r\n{line}\r\n" in head


def test_a_redirect_is_not_followed():
    with serving(sends(OK)) as inside:
        location = (
            f"HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:{inside.port}/\r\nContent-Length: 0\r\n\r\n".encode()
        )
        with serving(sends(location)) as server:
            assert post(server).status == 307
        assert inside.connections == 0


def test_no_proxy_of_the_environment_is_used(monkeypatch):
    with serving(sends(OK)) as server, serving(sends(OK)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert post(server).status == 200
        assert (server.connections, proxy.connections) == (1, 0)


def test_each_request_resolves_anew_and_connects_to_what_was_checked(monkeypatch):
    """A name that is public at registration and leads to a private address later (rebinding)."""
    answers = [[ip_address("8.8.8.8")], [ip_address("10.0.0.1")]]
    outbound = Outbound(allow_loopback=False, resolve=lambda _: answers.pop(0))
    outbound.check("https://example.com/")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it must not connect"))
    with pytest.raises(TargetRefused, match=r"10\.0\.0\.1"):
        outbound.post("https://example.com/", {}, b"{}")


def test_the_addresses_are_resolved_once_for_check_and_connection():
    answers = [[LOCAL], [ip_address("10.0.0.1")]]
    with serving(sends(OK)) as server:
        outbound = Outbound(allow_loopback=True, resolve=lambda _: answers.pop(0))
        assert outbound.post(f"http://hooks.example.com:{server.port}/", {}, b"{}").status == 200
        assert f"Host: hooks.example.com:{server.port}".encode() in server.requests[0]
    assert len(answers) == 1


@pytest.mark.parametrize("lure", ["8.8.8.8", "2606:4700::1111"])
def test_one_bad_address_among_good_ones_refuses_all(lure):
    for found in ([lure, "127.0.0.1"], ["127.0.0.1", lure]):
        outbound = Outbound(allow_loopback=False, resolve=lambda _, found=found: [ip_address(one) for one in found])
        with pytest.raises(TargetRefused, match="loopback"):
            outbound.post("https://example.com/", {}, b"{}")


def test_the_next_address_is_tried_where_nothing_listens():
    with serving(sends(OK)) as server:
        outbound = Outbound(allow_loopback=True, resolve=lambda _: [ip_address("127.0.0.77"), ip_address("::1"), LOCAL])
        assert outbound.post(f"http://hooks.example.com:{server.port}/", {}, b"{}").status == 200


@pytest.mark.parametrize(
    "handle",
    [
        sends(end=False),
        sends(b"HTTP/1.1 200 OK\r\n", end=False),
        drips(b"HTTP/1.1 200 OK\r\nX: "),
        drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"[:1]),
    ],
    ids=["silent", "half a head", "endless header", "slow status line"],
)
def test_a_response_that_does_not_come_ends_at_the_deadline(handle):
    with serving(handle) as server:
        began = time.monotonic()
        with pytest.raises((RequestTimeout, RequestFailed)):
            post(server, seconds=0.5)
        assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "handle",
    [
        floods(b"HTTP/1.1 200 OK\r\n\r\n"),
        floods(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"),
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"2710\r\n" + b"x" * 10_000 + b"\r\n"] * 5),
    ],
    ids=["without a length", "with a length", "chunks"],
)
def test_a_large_body_is_cut(handle):
    with serving(handle) as server:
        response = post(server)
    assert (response.status, len(response.body)) == (200, MAX_KEPT)


def test_an_endless_head_is_cut():
    with serving(floods(b"HTTP/1.1 200 OK\r\nX: ")) as server, pytest.raises(RequestFailed):
        post(server)


def test_endless_interim_responses_are_cut():
    with serving(drips(b"", b"HTTP/1.1 103 Early\r\n\r\n")) as server:
        assert post(server).status == 103


def test_an_interim_response_is_skipped():
    with serving(sends(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK)) as server:
        assert post(server).body == b"ok"


def test_a_slow_body_is_kept_as_far_as_it_came(monkeypatch):
    monkeypatch.setattr(client, "BODY_SECONDS", 0.3)
    with serving(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst", end=False)) as server:
        response = post(server)
    assert (response.status, response.body) == (200, b"first")


@pytest.mark.parametrize("garbage", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00\x01\x02\r\n\r\n"])
def test_what_is_no_http_is_a_failure(garbage):
    with serving(sends(garbage)) as server, pytest.raises(RequestFailed):
        post(server)


def test_a_closed_port_is_a_failure():
    with serving(sends(OK)) as server:
        port = server.port
    with pytest.raises(RequestFailed, match="no connection"):
        Outbound(allow_loopback=True).post(f"http://127.0.0.1:{port}/", {}, b"")


def test_a_header_cannot_add_lines():
    with serving(sends(OK)) as server, pytest.raises(ValueError, match="line break"):
        Outbound(allow_loopback=True).post(f"http://127.0.0.1:{server.port}/", {"X": "1\r\nY: 2"}, b"")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Returns (the server's context, a client's context that trusts it) for hooks.example.com."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example.com")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "cert.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


class TestTls:
    def test_the_name_is_sent_and_verified(self, authority):
        server_tls, client_tls = authority
        names = []
        server_tls.sni_callback = lambda _socket, name, _context: names.append(name)
        outbound = Outbound(allow_loopback=True, resolve=lambda _: [LOCAL], tls=client_tls)
        with serving(sends(OK), server_tls) as server:
            assert outbound.post(f"https://hooks.example.com:{server.port}/", {}, b"{}").body == b"ok"
            assert names == ["hooks.example.com"]
            with pytest.raises(RequestFailed, match="certificate"):
                outbound.post(f"https://other.example.com:{server.port}/", {}, b"{}")

    def test_an_unknown_authority_is_refused(self, authority):
        outbound = Outbound(allow_loopback=True, resolve=lambda _: [LOCAL])
        with serving(sends(OK), authority[0]) as server, pytest.raises(RequestFailed, match="certificate"):
            outbound.post(f"https://hooks.example.com:{server.port}/", {}, b"{}")

    def test_a_silent_handshake_ends(self, monkeypatch):
        monkeypatch.setattr(client, "HANDSHAKE_SECONDS", 0.3)
        outbound = Outbound(allow_loopback=True, resolve=lambda _: [LOCAL])
        with serving(sends(end=False)) as server, pytest.raises(RequestTimeout, match="no TLS"):
            outbound.post(f"https://hooks.example.com:{server.port}/", {}, b"{}")


class TestNames:
    """The resolver, with a name server on loopback."""

    @pytest.fixture
    def resolver(self):
        """Returns a function: `resolver(respond)`, where `respond(question)` returns a dnspython response or None."""
        import dns.message
        import dns.resolver

        servers = []

        def start(respond):
            sock = eventlet.green.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("127.0.0.1", 0))

            def serve():
                while True:
                    wire, client_address = sock.recvfrom(4096)
                    response = respond(dns.message.make_response(dns.message.from_wire(wire)))
                    if response is not None:
                        sock.sendto(response.to_wire(), client_address)

            servers.append((eventlet.spawn(serve), sock))
            resolver = DnsResolver()
            configured = dns.resolver.Resolver(configure=False)
            configured.nameservers, configured.port = ["127.0.0.1"], sock.getsockname()[1]
            resolver._resolver, resolver._loaded = configured, time.monotonic()
            return resolver

        yield start
        for greenlet, sock in servers:
            greenlet.kill()
            sock.close()

    @staticmethod
    def answer(response, **records):
        import dns.rrset

        question = response.question[0]
        kind = "A" if question.rdtype == 1 else "AAAA"
        if kind in records:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *records[kind]))
        return response

    def test_all_addresses_of_both_kinds(self, resolver):
        records = {"A": ["8.8.8.8", "10.0.0.1"], "AAAA": ["2606:4700::1111"]}
        found = resolver(lambda response: self.answer(response, **records))("example.com")
        assert sorted(map(str, found)) == ["10.0.0.1", "2606:4700::1111", "8.8.8.8"]

    def test_a_name_without_addresses(self, resolver):
        with pytest.raises(HostUnknown, match="no address"):
            resolver(self.answer)("example.com")

    def test_a_name_that_does_not_exist(self, resolver):
        def respond(response):
            response.set_rcode(3)
            return response

        with pytest.raises(HostUnknown, match="does not exist"):
            resolver(respond)("example.com")

    def test_silence_ends_and_blocks_nobody(self, resolver, monkeypatch):
        monkeypatch.setattr("extensions.outbound.resolver.LOOKUP_SECONDS", 0.5)
        ticks = []

        def tick():
            while True:
                ticks.append(1)
                eventlet.sleep(0.02)

        ticking = eventlet.spawn(tick)
        with pytest.raises(HostUnknown):
            resolver(lambda _: None)("example.com")
        ticking.kill()
        assert len(ticks) > 5

    def test_too_many_addresses(self, resolver):
        many = [f"8.8.{number}.8" for number in range(60)]
        with pytest.raises((TargetRefused, HostUnknown)):
            resolver(lambda response: self.answer(response, A=many))("example.com")
