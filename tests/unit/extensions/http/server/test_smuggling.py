"""Request smuggling: ambiguous requests are refused, or parsed in one defined way.

A refused request gets one response, 400 or 413, and no later byte on the connection is parsed as a request.
"""

import json
import socket

import pytest

from contracts.users import RefreshToken
from extensions.http.message.request import Access
from extensions.http.routing.route import route
from tests.http_service import listening

seen = []


class Recorder:
    """Records the requests that reach its handlers."""

    name = "recorder"

    @route("POST", "/echo", access=Access.ANYONE, body=RefreshToken)
    def echo(self, request):
        seen.append(("echo", request.body.refresh_token))
        return {}

    @route("GET", "/probe", access=Access.ANYONE)
    def probe(self, _request):
        seen.append("probe")
        return {}

    @route("GET", "/smuggled", access=Access.ANYONE)
    def smuggled(self, _request):
        seen.append("smuggled")
        return {}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with listening(Recorder, tmp_path_factory.mktemp("keys")) as container:
        yield container.address


@pytest.fixture
def send(address):
    """Send bytes, close the sending side, and return everything that the server sends."""
    seen.clear()

    def send(data):
        with socket.create_connection(address, timeout=5) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            received = b""
            while piece := sock.recv(65536):
                received += piece
            return received

    return send


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b'{"refresh_token":"a"}'
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


def post(*headers, body=BODY, end=b"\r\n"):
    return b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + b"".join(headers) + end + body


def get(line=b"GET /probe HTTP/1.1\r\n", *headers, end=b"\r\n"):
    return line + b"".join(headers or (b"Host: x\r\n",)) + end


def te(value, name=b"Transfer-Encoding"):
    return name + b":" + value + b"\r\n"


REFUSED = {
    # two lengths
    "CL.TE": post(LENGTH, te(b" chunked"), body=CHUNKED),
    "TE.CL": post(te(b" chunked"), LENGTH, body=CHUNKED),
    "CL.TE, the smuggled request after the end": post(b"Content-Length: 6\r\n", te(b" chunked"), body=b"0\r\n\r\nG"),
    "TE.TE": post(te(b" chunked"), te(b" identity"), body=CHUNKED),
    "TE.TE, the same twice": post(te(b" chunked"), te(b" chunked"), body=CHUNKED),
    "different lengths": post(LENGTH, b"Content-Length: 1\r\n"),
    "the same length twice": post(LENGTH, LENGTH),
    "a list of lengths": post(b"Content-Length: 21, 21\r\n"),
    "two lengths with names in different case": post(LENGTH, b"CONTENT-LENGTH: 0\r\n"),
    # other spellings of a length
    "length +": post(b"Content-Length: +21\r\n"),
    "length -": post(b"Content-Length: -21\r\n"),
    "length hex": post(b"Content-Length: 0x15\r\n"),
    "length fraction": post(b"Content-Length: 21.0\r\n"),
    "length exponent": post(b"Content-Length: 2e1\r\n"),
    "length underscore": post(b"Content-Length: 2_1\r\n"),
    "length space within": post(b"Content-Length: 2 1\r\n"),
    "length empty": post(b"Content-Length:\r\n"),
    "length vertical tab": post(b"Content-Length: \x0b21\r\n"),
    "length no-break space": post(b"Content-Length: \xa021\r\n"),
    "length other digits": post("Content-Length: ٢١\r\n".encode()),
    "length superscript": post(b"Content-Length: 2\xb9\r\n"),
    "length too long": post(b"Content-Length: " + b"9" * 30 + b"\r\n"),
    # other spellings of chunked
    "TE xchunked": post(te(b" xchunked"), body=CHUNKED),
    "TE chunked, identity": post(te(b" chunked, identity"), body=CHUNKED),
    "TE identity": post(te(b" identity"), body=CHUNKED),
    "TE gzip, chunked": post(te(b" gzip, chunked"), body=CHUNKED),
    "TE with parameter": post(te(b" chunked;q=1"), body=CHUNKED),
    "TE quoted": post(te(b' "chunked"'), body=CHUNKED),
    "TE empty": post(te(b""), body=CHUNKED),
    "TE vertical tab": post(te(b"\x0bchunked"), body=CHUNKED),
    "TE NUL": post(te(b" chunked\x00"), body=CHUNKED),
    "TE in HTTP/1.0": post(te(b" chunked"), body=CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "TE after a bare LF": post(b"X: y\n" + te(b" chunked"), body=CHUNKED),
    "TE after a bare CR": post(b"X: y\r" + te(b" chunked"), body=CHUNKED),
    # header lines
    "space before the colon": post(te(b" chunked", b"Transfer-Encoding "), body=CHUNKED),
    "tab before the colon": post(te(b" chunked", b"Transfer-Encoding\t"), body=CHUNKED),
    "space before a length's colon": post(b"Content-Length : 21\r\n"),
    "folded": post(b"Transfer-Encoding:\r\n chunked\r\n", body=CHUNKED),
    "folded with a tab": post(b"X: y\r\n\tTransfer-Encoding: chunked\r\n", body=CHUNKED),
    "first header folded": get(b"GET /probe HTTP/1.1\r\n", b" Host: x\r\n", b"Host: x\r\n"),
    "no name": get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", b": y\r\n"),
    "no colon": get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", b"nonsense\r\n"),
    "name with NUL": get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", b"A\x00B: y\r\n"),
    "name that is not ASCII": get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", "Transfer-Encodinğ: y\r\n".encode()),
    "value with NUL": get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", b"A: b\x00c\r\n"),
    "value with CR": get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", b"A: b\rc\r\n"),
    "lines end with LF": get().replace(b"\r\n", b"\n"),
    "the head ends with LF": get(end=b"\n"),
    "the head ends with CR": get(end=b"\r"),
    "two hosts": get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", b"Host: y\r\n"),
    "no host": b"GET /probe HTTP/1.1\r\n\r\n",
    "many headers": get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", *[b"A%d: y\r\n" % n for n in range(200)]),
    "a giant header": get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", b"A: " + b"y" * 20_000 + b"\r\n"),
    "giant headers": get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", *[b"A: " + b"y" * 8000 + b"\r\n"] * 9),
    # request lines
    "HTTP/0.9": b"GET /probe\r\n",
    "no version": b"GET /probe \r\nHost: x\r\n\r\n",
    "HTTP/2": get(b"GET /probe HTTP/2.0\r\n"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.10": get(b"GET /probe HTTP/1.10\r\n"),
    "http in small letters": get(b"GET /probe http/1.1\r\n"),
    "two spaces": get(b"GET  /probe HTTP/1.1\r\n"),
    "tabs": get(b"GET\t/probe\tHTTP/1.1\r\n"),
    "a space in front": get(b" GET /probe HTTP/1.1\r\n"),
    "a request in the target": get(b"GET /probe HTTP/1.1\r\nX: y HTTP/1.1\r\n".replace(b"\r\n", b" ", 1)),
    "a method with CR": get(b"GE\rT /probe HTTP/1.1\r\n"),
    "no slash": get(b"GET probe HTTP/1.1\r\n"),
    "another scheme": get(b"GET ftp://x/probe HTTP/1.1\r\n"),
    "no host in the target": get(b"GET http:///probe HTTP/1.1\r\n"),
    "an asterisk": get(b"GET * HTTP/1.1\r\n"),
    "CONNECT": get(b"CONNECT x:443 HTTP/1.1\r\n"),
    "a target with NUL": get(b"GET /pro\x00be HTTP/1.1\r\n"),
    "a target that is not ASCII": get("GET /çay HTTP/1.1\r\n".encode()),
    "a giant target": get(b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n"),
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a proxy's greeting": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + get(),
    # chunks
    "chunk size empty": post(te(b" chunked"), body=b"\r\n"),
    "a wrong chunk size before a right one": post(te(b" chunked"), body=b"xyz\r\n0\r\n\r\n"),
    "a body too large before the end of a small one": post(te(b" chunked"), body=b"FFFFFFFF\r\n0\r\n\r\n"),
    "chunk size +": post(te(b" chunked"), body=CHUNKED.replace(b"15", b"+15", 1)),
    "chunk size -": post(te(b" chunked"), body=b"-15\r\n"),
    "chunk size 0x": post(te(b" chunked"), body=CHUNKED.replace(b"15", b"0x15", 1)),
    "chunk size underscore": post(te(b" chunked"), body=CHUNKED.replace(b"15", b"1_5", 1)),
    "chunk size with a space in front": post(te(b" chunked"), body=b" " + CHUNKED),
    "chunk size with a space behind": post(te(b" chunked"), body=CHUNKED.replace(b"15", b"15 ", 1)),
    "chunk size that overflows 64 bits": post(te(b" chunked"), body=b"1" + b"0" * 15 + b"15\r\n" + BODY),
    "chunk line with LF": post(te(b" chunked"), body=CHUNKED.replace(b"15\r\n", b"15\n", 1)),
    "chunk line with CR": post(te(b" chunked"), body=CHUNKED.replace(b"15\r\n", b"15\r", 1)),
    "chunk that ends with LF": post(te(b" chunked"), body=b"15\r\n" + BODY + b"\n0\r\n\r\n"),
    "chunk without an end": post(te(b" chunked"), body=b"15\r\n" + BODY + b"0\r\n\r\n"),
    "chunk longer than its stated size": post(te(b" chunked"), body=b"14\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk extension with LF": post(te(b" chunked"), body=CHUNKED.replace(b"15\r\n", b"15;a\nb\r\n", 1)),
    "chunk extension with CR": post(te(b" chunked"), body=CHUNKED.replace(b"15\r\n", b"15;a\rb\r\n", 1)),
    "chunk extension with NUL": post(te(b" chunked"), body=CHUNKED.replace(b"15\r\n", b"15;\x00\r\n", 1)),
    "chunk extension too long": post(te(b" chunked"), body=b"15;" + b"a" * 300 + CHUNKED[2:]),
    "trailer with a space before the colon": post(te(b" chunked"), body=CHUNKED[:-2] + b"A : b\r\n\r\n"),
    "trailers with LF": post(te(b" chunked"), body=CHUNKED[:-2] + b"A: b\n\r\n"),
    "a body that ends early": post(te(b" chunked"), body=b"15\r\n{"),
}  # fmt: skip

ECHO = ("echo", "a")
ACCEPTED = {
    "a length": (post(LENGTH), [ECHO]),
    "a length with zeros in front": (post(b"Content-Length: 0021\r\n"), [ECHO]),
    "a length between blanks": (post(b"Content-Length: \t 21 \t\r\n"), [ECHO]),
    "chunks": (post(te(b" chunked"), body=CHUNKED), [ECHO]),
    "chunks in capitals": (post(te(b" CHUNKED", b"TRANSFER-ENCODING"), body=CHUNKED), [ECHO]),
    "chunk extensions": (post(te(b" chunked"), body=CHUNKED.replace(b"15\r\n", b'15;a="b c";d\r\n', 1)), [ECHO]),
    "chunk size with zeros in front": (post(te(b" chunked"), body=b"000" + CHUNKED), [ECHO]),
    "trailers are ignored": (post(te(b" chunked"), body=CHUNKED[:-2] + b"Content-Length: 99\r\n\r\n"), [ECHO]),
    "underscores are no hyphens": (
        post(LENGTH, te(b" chunked", b"Transfer_Encoding"), b"Content_Length: 3\r\n"), [ECHO],
    ),
    "a header of another name": (post(LENGTH, te(b" chunked", b"X-Transfer-Encoding")), [ECHO]),
    "no length is no body": (get(), ["probe"]),
    "a GET with a body": (get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", LENGTH) + SMUGGLED[:21], ["probe"]),
    "an absolute target": (get(b"GET http://other.example/probe HTTP/1.1\r\n"), ["probe"]),
    "an empty line in front": (b"\r\n" + get(), ["probe"]),
    "an upgrade is ignored": (
        get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", b"Connection: Upgrade\r\n", b"Upgrade: h2c\r\n"), ["probe"],
    ),
    "a hundred headers": (
        get(b"GET /probe HTTP/1.1\r\n", b"Host: x\r\n", *[b"A%d: y\r\n" % n for n in range(99)]), ["probe"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_ambiguous_request_is_refused_and_closes_the_connection(send, name):
    received = send(REFUSED[name] + SMUGGLED)
    assert seen == []
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")), received[:200]
    assert received.count(b"HTTP/1.1 ") == 1
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["code"] in {"VALIDATION_ERROR", "PAYLOAD_TOO_LARGE"}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_unusual_request_is_accepted_and_the_next_one_too(send, name):
    data, expected = ACCEPTED[name]
    received = send(data + get())
    assert seen == [*expected, "probe"]
    assert received.count(b"HTTP/1.1 200 ") == len(seen)
    assert received.count(b"HTTP/1.1 ") == len(seen)


def test_responses_do_not_identify_the_server_and_have_security_headers(send):
    for data in (get(), get(b"GET /nowhere HTTP/1.1\r\n"), REFUSED["CL.TE"], post(LENGTH, body=b"{" * len(BODY))):
        head = send(data).partition(b"\r\n\r\n")[0].decode().lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        assert headers.keys().isdisjoint({"server", "x-powered-by", "via"})
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["cache-control"] == ("no-cache" if " 200 " in head else "no-store")
        assert "strict-transport-security" not in headers  # only in production
