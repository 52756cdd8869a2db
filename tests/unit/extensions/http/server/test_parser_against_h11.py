"""Our request parser compared with h11: the same method, target, headers, body and end of the request, or a refusal.

DIFFERENCES lists every intended difference, with its reason and an example. Any other difference fails the test.
"""

import re
import socket
from dataclasses import dataclass

import h11
import pytest
from eventlet import patcher
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.errors import ServiceError
from extensions.http.server.connection import Connection

MAX_BODY = 10_000
plain = patcher.original("socket")


@dataclass(frozen=True)
class Parsed:
    """One accepted request."""

    method: str
    path: str
    query: str
    headers: dict
    body: bytes
    rest: bytes
    """What follows the request: the next one on the connection."""
    keep_alive: bool


class PairedSocket(plain.socket):
    """One end of a socket pair, which has no address."""

    def getpeername(self):
        return ("127.0.0.1", 1)


def parse_with_ours(data):
    """Parse the first request of `data`; None where it is refused or incomplete."""
    client, server = plain.socketpair()
    with client, PairedSocket(fileno=server.detach()) as server:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        server.setblocking(False)
        connection = Connection(server, MAX_BODY)
        try:
            head = connection.read_head(1.0)
            if head is None:
                return None
            body = connection.read_body(head)
        except (ServiceError, ConnectionError):
            return None
        assert connection.reusable(head)
        rest = connection._reader.read()
        return Parsed(head.method, head.path, head.query, head.headers, body, rest, head.keep_alive)


def parse_with_h11(data):
    """Parse the first request of `data` with h11; None where it is refused or incomplete."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    body = b""
    try:
        request = connection.next_event()
        if not isinstance(request, h11.Request):
            return None
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                return None
            body += bytes(event.data)
    except h11.RemoteProtocolError:
        return None
    target = re.sub(r"^https?://[^/?#]+", "", request.target.decode(), flags=re.IGNORECASE) or "/"
    path, _, query = target.partition("?")
    keep_alive = connection.their_state is h11.DONE
    rest = bytes(connection.trailing_data[0])
    return Parsed(request.method.decode(), path, query, joined(request.headers), body, rest, keep_alive)


def joined(pairs):
    headers = {}
    for name, value in pairs:
        key, text = name.decode(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


@dataclass(frozen=True)
class Difference:
    """An intended difference: requests that match `pattern` (of bytes) may differ, as `example` does."""

    reason: str
    pattern: str
    example: bytes

    def applies(self, data):
        return re.search(self.pattern.encode("latin-1"), data, re.IGNORECASE | re.MULTILINE | re.DOTALL) is not None


def get(*headers, line=b"GET / HTTP/1.1"):
    return b"\r\n".join([line, b"Host: x", *headers, b"", b""])


def post(*headers, body):
    return get(*headers, line=b"POST / HTTP/1.1") + body


CHUNKED = b"Transfer-Encoding: chunked"

# h11 accepts these and we refuse them.
STRICTER = {
    "a line that ends with LF only": Difference(
        "parsers disagree on whether LF alone ends a line", r"(?<!\r)\n", b"GET / HTTP/1.1\nHost: x\n\n"
    ),
    "a folded header": Difference(
        "RFC 9112 deprecates line folding; some parsers read the second line as a header",
        r"\n[ \t]",
        get(b"A: b", b" c"),
    ),
    "a control character in a header": Difference(
        "RFC 9110 forbids them; they corrupt log lines", r"[\x01-\x08\x0e-\x1f\x7f]", get(b"A: b\x01c")
    ),
    "a repeated or listed Content-Length": Difference(
        "parsers disagree on which one counts, even where h11 finds them equal",
        r"^content-length:[^\n]*(,|\n.*?^content-length:)",
        post(b"Content-Length: 1", b"Content-Length: 1", body=b"a"),
    ),
    "a repeated header of which there must be one": Difference(
        "services could read another value than a proxy",
        r"^(content-type|authorization|idempotency-key):.*^\1:",
        get(b"Content-Type: text/plain", b"Content-Type: application/json"),
    ),
    "Content-Length and Transfer-Encoding": Difference(
        "the classic request smuggling; h11 lets Transfer-Encoding win",
        r"^(content-length:.*^transfer-encoding:|transfer-encoding:.*^content-length:)",
        post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    ),
    "Transfer-Encoding in HTTP/1.0": Difference(
        "HTTP/1.0 proxies do not know it (RFC 9112, section 6.1)",
        r"HTTP/1\.0\r\n.*^transfer-encoding:",
        get(CHUNKED, line=b"POST / HTTP/1.0") + b"0\r\n\r\n",
    ),
    "a version other than HTTP/1.x": Difference(
        "we do not know the rules of other versions", r"\A\S+ \S+ HTTP/[02-9]", get(line=b"GET / HTTP/2.0")
    ),
    "no Host in HTTP/1.2 and later": Difference(
        "we treat later minor versions as HTTP/1.1; h11 requires Host in 1.1 only",
        r"\A\S+ \S+ HTTP/1\.[2-9]",
        b"GET / HTTP/1.2\r\n\r\n",
    ),
    "another form of target": Difference(
        "routes have paths; CONNECT and other schemes are for proxies",
        r"\A(?!\S+ (/|https?://[^/?#\s])|OPTIONS \* )\S+ ",
        get(line=b"GET x HTTP/1.1"),
    ),
    "a chunk size with a space behind it": Difference(
        "RFC 9112 has no space there", r"^[0-9a-f]+[^\r\n]*[ \t]\r\n", post(CHUNKED, body=b"1 \r\na\r\n0\r\n\r\n")
    ),
    "a chunk size of more than eight digits": Difference(
        "such a number may overflow in another parser",
        r"^[0-9a-f]{9,}(;[^\n]*)?\r\n",
        post(CHUNKED, body=b"0000000001\r\na\r\n0\r\n\r\n"),
    ),
    "a control character in a chunk extension": Difference(
        "RFC 9112 allows visible characters only",
        r"^[0-9a-f]+;[^\n]*[\x00-\x08\x0b-\x1f\x7f][^\n]*\r\n",
        post(CHUNKED, body=b"1;\x00\r\na\r\n0\r\n\r\n"),
    ),
}
# We accept these and h11 refuses them.
LOOSER = {
    "an empty line before the request": Difference(
        "RFC 9112, section 2.2: some old clients send CR LF after a body", r"\A\r\n", b"\r\n" + get()
    ),
}
# Both accept these, and decide differently whether the connection stays open.
KEEP_ALIVE = {
    "keep-alive in HTTP/1.0": Difference(
        "h11 does not support it; ab and old clients use it",
        r"HTTP/1\.0\r\n.*^connection:[^\n]*keep-alive",
        get(b"Connection: keep-alive", line=b"GET / HTTP/1.0"),
    ),
    "CONNECT and Upgrade": Difference(
        "h11 waits for a decision about the new protocol; we never switch",
        r"\ACONNECT |^upgrade:",
        get(b"Upgrade: h2c"),
    ),
    "an option that contains close": Difference(
        "closing needlessly is safe", r"^connection:[^\n]*close", get(b"Connection: not-close")
    ),
}


def applicable(differences, data):
    return [name for name, difference in differences.items() if difference.applies(data)]


def compare(data):
    """Fail where the parsers differ and no listed difference applies."""
    ours, theirs = parse_with_ours(data), parse_with_h11(data)
    if ours is None and theirs is None:
        return
    if ours is None:
        assert applicable(STRICTER, data), f"only h11 accepts {data!r}"
        return
    if theirs is None:
        assert applicable(LOOSER, data), f"only we accept {data!r}"
        return
    if ours.keep_alive != theirs.keep_alive:
        assert applicable(KEEP_ALIVE, data), f"keep-alive differs for {data!r}"
    assert same_request(ours) == same_request(theirs), data


def same_request(parsed):
    """All but keep_alive. h11 returns the transfer coding in lower case."""
    headers = parsed.headers | {
        name: value.lower() for name, value in parsed.headers.items() if name == "transfer-encoding"
    }
    return parsed.method, parsed.path, parsed.query, headers, parsed.body, parsed.rest


TOKENS = st.text("AZaz09!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
VISIBLE = st.text([chr(code) for code in range(0x21, 0x7F)], max_size=12).map(str.encode)
BLANKS = st.sampled_from([b"", b" ", b"\t", b" \t "])
METHODS = st.one_of(st.sampled_from([b"GET", b"POST", b"PATCH", b"OPTIONS", b"HEAD", b"CONNECT", b"get"]), TOKENS)
TARGETS = st.one_of(
    st.sampled_from(
        [b"/", b"/a/b?c=d", b"/%2f?", b"*", b"http://x", b"HTTPS://x:1?a", b"http://x/a#b", b"x:443", b"//a"]
    ),
    VISIBLE.map(lambda text: b"/" + text),
    VISIBLE,
)
VERSIONS = st.sampled_from(
    [b"HTTP/1.1"] * 8 + [b"HTTP/1.0"] * 3 + [b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.10"]
)
HEADERS = st.one_of(
    st.tuples(TOKENS, VISIBLE),
    st.tuples(
        st.sampled_from([b"Host", b"Connection", b"connection", b"Content-Length", b"Transfer-Encoding", b"Expect",
                         b"Upgrade"]),
        st.sampled_from([b"x", b"close", b"keep-alive, Upgrade", b"", b"3", b"03", b"+3", b"3, 3", b"chunked",
                         b"Chunked", b"gzip, chunked", b"identity", b"100-continue"]),
    ),
    st.tuples(st.sampled_from([b"Content-Type", b"Accept", b"Cookie", b"X_Y"]), st.binary(max_size=10)),
)  # fmt: skip


@st.composite
def bodies(draw):
    """(framing header, body): none, by length, or in chunks."""
    body = draw(st.binary(max_size=30))
    kind = draw(st.sampled_from(["none", "length", "chunks"]))
    if kind == "none":
        return [], b""
    if kind == "length":
        return [(b"Content-Length", b"%d" % len(body))], body
    size = draw(st.integers(1, 10))
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    extension = draw(st.sampled_from([b"", b"", b";a", b';a="b c"']))
    trailers = draw(st.sampled_from([b"", b"", b"A: b\r\n"]))
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return [(b"Transfer-Encoding", b"chunked")], framed + b"0\r\n" + trailers + b"\r\n"


@st.composite
def requests(draw):
    """A request that is mostly valid, followed by part of another one."""
    framing, body = draw(bodies())
    host = draw(st.sampled_from([[(b"Host", b"x")]] * 6 + [[]]))
    headers = draw(st.permutations(host + framing + draw(st.lists(HEADERS, max_size=3))))
    lines = [b" ".join([draw(METHODS), draw(TARGETS), draw(VERSIONS)])]
    lines += [name + b":" + draw(BLANKS) + value + draw(BLANKS) for name, value in headers]
    start = draw(st.sampled_from([b""] * 8 + [b"\r\n", b"\r\n\r\n"]))
    return start + b"\r\n".join([*lines, b"", b""]) + body + draw(st.sampled_from([b"", b"GET / HTTP/1.1\r\n"]))


SPECIAL = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\x00",
    b"\x0b",
    b"\x7f",
    b"\xa0",
    b"0",
    b"f",
    b"/",
    b"?",
]


@st.composite
def mutated(draw):
    """A request with up to three insertions, deletions or repetitions."""
    data = draw(requests())
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(1, 8))
        match draw(st.sampled_from(["insert", "delete", "repeat", "replace"])):
            case "insert":
                data = data[:at] + draw(st.sampled_from(SPECIAL)) + data[at:]
            case "delete":
                data = data[:at] + data[at + length :]
            case "repeat":
                data = data[:at] + data[at : at + length] + data[at:]
            case "replace":
                data = data[:at] + draw(st.binary(min_size=1, max_size=1)) + data[at + 1 :]
    return data


@settings(max_examples=400, deadline=None)
@given(requests())
@example(get())
@example(post(b"Content-Length: 3", body=b"abcGET / HTTP/1.1"))
def test_requests_are_parsed_as_h11_does(data):
    compare(data)


@settings(max_examples=600, deadline=None)
@given(mutated())
def test_mutated_requests_are_refused_or_parsed_as_h11_does(data):
    compare(data)


@pytest.mark.parametrize("name", STRICTER)
def test_we_are_stricter(name):
    data = STRICTER[name].example
    assert parse_with_h11(data) is not None
    assert parse_with_ours(data) is None
    assert name in applicable(STRICTER, data)


@pytest.mark.parametrize("name", LOOSER)
def test_we_are_looser(name):
    data = LOOSER[name].example
    assert parse_with_h11(data) is None
    assert parse_with_ours(data) is not None
    assert name in applicable(LOOSER, data)


@pytest.mark.parametrize("name", KEEP_ALIVE)
def test_keep_alive_differs(name):
    data = KEEP_ALIVE[name].example
    ours, theirs = parse_with_ours(data), parse_with_h11(data)
    assert ours.keep_alive is not theirs.keep_alive
    assert same_request(ours) == same_request(theirs)
    assert name in applicable(KEEP_ALIVE, data)
