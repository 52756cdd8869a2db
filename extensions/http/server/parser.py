"""The HTTP/1.1 request parser (RFC 9112), strict: input that two parsers could read differently is refused.

That prevents request smuggling behind a proxy. tests/unit/extensions/http/server/test_parser_against_h11.py compares
it with h11 and lists where it is stricter.
"""

import re
from dataclasses import dataclass
from typing import BinaryIO

from extensions.http.message.errors import MalformedRequest, PayloadTooLarge

MAX_LINE_BYTES = 8 * 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_CHUNK_LINE_BYTES = 256

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"[!-~]+")
_VERSION = re.compile(rb"HTTP/1\.[0-9]")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(;[\t -~\x80-\xff]*)?\r\n")
_ABSOLUTE = re.compile(r"https?://[^/?#]+", re.IGNORECASE)
_SINGLE = frozenset({"host", "content-length", "content-type", "authorization", "idempotency-key"})


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The request line and the headers. Header names are in lower case, repeated headers are joined with a comma."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    keep_alive: bool
    length: int | None
    """The length of the body in bytes; None for a chunked body."""
    is_http_1_0: bool = False
    expects_continue: bool = False
    """True where the client waits for 100 Continue before it sends the body."""


def parse_head(reader: BinaryIO) -> RequestHead:
    """Read the head of a request.

    Raises MalformedRequest, and ConnectionError where the input ends within the head.
    """
    line = _read_line(reader) or _read_line(reader)  # RFC 9112, section 2.2: one empty line before a request is allowed
    parts = line.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not _TARGET.fullmatch(parts[1]):
        raise MalformedRequest("The request line is not: METHOD /path HTTP/1.1")
    if not _VERSION.fullmatch(parts[2]):
        raise MalformedRequest("The only supported version is HTTP/1.1.")
    is_http_1_0 = parts[2] == b"HTTP/1.0"
    headers = _read_headers(reader)
    if not is_http_1_0 and "host" not in headers:
        raise MalformedRequest("The Host header is missing.")
    path, query = _split_target(parts[1].decode("ascii"), parts[0])
    return RequestHead(
        method=parts[0].decode("ascii"),
        path=path,
        query=query,
        headers=headers,
        keep_alive=_keep_alive(headers, is_http_1_0),
        length=_body_length(headers, is_http_1_0),
        is_http_1_0=is_http_1_0,
        expects_continue=not is_http_1_0 and headers.get("expect", "").lower() == "100-continue",
    )


def read_exactly(reader: BinaryIO, length: int) -> bytes:
    """Read a body of `length` bytes. Raises ConnectionError where the input ends before."""
    body = reader.read(length)
    if len(body) < length:
        raise ConnectionError("the client closed the connection within a body")
    return body


def read_chunked(reader: BinaryIO, max_bytes: int) -> bytes:
    """Read a chunked body, and ignore its trailers.

    Raises PayloadTooLarge for more than `max_bytes`, MalformedRequest, ConnectionError.
    """
    body = bytearray()
    while size := read_chunk_size(reader):
        if len(body) + size > max_bytes:
            raise PayloadTooLarge.over(max_bytes)
        body += read_exactly(reader, size)
        if reader.read(2) != b"\r\n":
            raise MalformedRequest("A chunk of the body is longer than its stated size.")
    read_trailers(reader)
    return bytes(body)


def _read_line(reader: BinaryIO) -> bytes:
    line = reader.readline(MAX_LINE_BYTES)
    if not line.endswith(b"\r\n"):
        if line.endswith(b"\n"):  # parsers disagree on whether a bare LF ends a line
            raise MalformedRequest("Lines must end with CR LF.")
        if len(line) >= MAX_LINE_BYTES:
            raise MalformedRequest(f"A line of the request's head is longer than {MAX_LINE_BYTES} bytes.")
        raise ConnectionError("the client closed the connection within a request")
    return line[:-2]


def _read_headers(reader: BinaryIO) -> dict[str, str]:
    headers: dict[str, str] = {}
    size = count = 0
    while line := _read_line(reader):
        size, count = size + len(line), count + 1
        if count > MAX_HEADERS:
            raise MalformedRequest(f"The request has more than {MAX_HEADERS} headers.")
        if size > MAX_HEAD_BYTES:
            raise MalformedRequest(f"The request's headers are longer than {MAX_HEAD_BYTES} bytes.")
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise MalformedRequest("A header line is not: Name: value")
        key, text = name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
        if key in headers and key in _SINGLE:
            raise MalformedRequest(f"The {key} header is repeated.")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def read_trailers(reader: BinaryIO) -> None:
    """Read the trailers of a chunked body, and ignore them. Raises MalformedRequest, ConnectionError."""
    _read_headers(reader)


def read_chunk_size(reader: BinaryIO) -> int:
    """Read the line before a chunk, and return its size; 0 for the last one. Raises MalformedRequest."""
    match = _CHUNK_SIZE.fullmatch(reader.readline(MAX_CHUNK_LINE_BYTES))
    if not match:
        raise MalformedRequest("A chunk of the body does not begin with its size.")
    return int(match[1], 16)


def _body_length(headers: dict[str, str], is_http_1_0: bool) -> int | None:
    """Return the length of the body, None where it is chunked."""
    coding = headers.get("transfer-encoding")
    stated = headers.get("content-length")
    if coding is not None:
        if stated is not None or is_http_1_0 or coding.lower() != "chunked":
            raise MalformedRequest("State either Content-Length or Transfer-Encoding: chunked.")
        return None
    if stated is None:
        return 0
    if not (stated.isascii() and stated.isdigit() and len(stated) <= 18):
        raise MalformedRequest("Content-Length is not a number.")
    return int(stated)


def _split_target(target: str, method: bytes) -> tuple[str, str]:
    """Return path and query of a request target: /path, http://host/path, or the * of OPTIONS."""
    if not target.startswith("/"):
        origin = _ABSOLUTE.match(target)
        if not origin and (target, method) != ("*", b"OPTIONS"):
            raise MalformedRequest("The request's target is neither /path nor http://host/path.")
        target = (target[origin.end() :] or "/") if origin else target
    path, _, query = target.partition("?")
    return path, query


def _keep_alive(headers: dict[str, str], is_http_1_0: bool) -> bool:
    options = headers.get("connection", "").lower()
    return "keep-alive" in options if is_http_1_0 else "close" not in options
