"""Posts to targets that users name, over HTTP.

    outbound = Outbound(allow_loopback=False)
    outbound.check("https://example.com/hook")                      # at registration; raises TargetRefused, HostUnknown
    response = outbound.post("https://example.com/hook", headers, body)

At each request the name is resolved anew, *every* address of it is checked, and the connection goes to one of the
addresses that were checked. TLS and the header Host use the name. No redirect is followed, no proxy is used, and
nothing of the environment changes the way. Each step has a deadline. After the beginning of the response the connection
is closed.
"""

import io
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from http.client import HTTPException, HTTPResponse
from typing import Any, TypeVar

import eventlet

from extensions.outbound.addresses import Address, parse
from extensions.outbound.parallel import call_each
from extensions.outbound.resolver import DnsResolver, Resolve
from extensions.outbound.results import TOTAL_SECONDS, RequestFailed, RequestTimeout, Response
from extensions.outbound.targets import LOCALHOST, Target, check_address, parse_target

CONNECT_SECONDS = 5.0
"""For each address; the next one is tried then."""
HANDSHAKE_SECONDS = 5.0
BODY_SECONDS = 3.0
"""After the head of the response. What the response says is known then; the body is only kept for the log."""
MAX_TRIED = 3
"""How many addresses of a name are tried."""
MAX_KEPT = 20_000
"""How many bytes of the response's body are kept. The rest is not read."""
MAX_RECEIVED = 131_072
"""How many bytes are received: the head, and what chunks add to the body."""
MAX_INTERIM = 4
"""How many interim responses (1xx) are skipped."""
USER_AGENT = "order-suite/1"

T = TypeVar("T")

LOCAL_ADDRESSES: tuple[Address, ...] = tuple(one for one in map(parse, ("127.0.0.1", "::1")) if one)


class Outbound:
    """Requests under the rules of this module. One object serves all greenlets of a process."""

    def __init__(
        self, *, allow_loopback: bool, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """`allow_loopback` permits this machine itself and plain HTTP, for development. `tls` is for tests."""
        self._allow_loopback = allow_loopback
        self._resolve = resolve or DnsResolver()
        self._tls = tls or ssl.create_default_context()

    def check(self, url: str) -> None:
        """Raise TargetRefused unless requests may go to this URL now, or HostUnknown if its name has no address."""
        self._addresses(parse_target(url, allow_loopback=self._allow_loopback))

    def post(self, url: str, headers: Mapping[str, str], body: bytes, seconds: float | None = None) -> Response:
        """Send `body`, and return the response, also a redirect or an error.

        Raises TargetRefused, HostUnknown, and RequestFailed if there is no response within `seconds`, by default
        TOTAL_SECONDS.
        """
        seconds = TOTAL_SECONDS if seconds is None else seconds
        target = parse_target(url, allow_loopback=self._allow_loopback)
        with eventlet.Timeout(seconds, RequestTimeout(f"no response within {seconds:g} s")):
            return self._exchange(target, _head(target, headers, len(body)) + body)

    def call_each(self, items: Iterable[T], call: Callable[[T], bool], *, places: int, seconds: float) -> None:
        """Call `call(item)` for each item, `places` at a time; no further one after a False, and after `seconds`."""
        call_each(items, call, places=places, seconds=seconds)

    def _addresses(self, target: Target) -> Sequence[Address]:
        """Return the addresses of the target. One that is not allowed refuses all: the others may be a lure."""
        if target.address is not None:
            found: Sequence[Address] = (target.address,)
        elif target.host == LOCALHOST:
            found = LOCAL_ADDRESSES
        else:
            found = self._resolve(target.host)
        for address in found:
            check_address(address, allow_loopback=self._allow_loopback)
        return found

    def _exchange(self, target: Target, request: bytes) -> Response:
        with closing(self._connect(target)) as connection:
            try:
                connection.sendall(request)
                return _read(connection)
            except (OSError, HTTPException, ValueError) as error:
                raise RequestFailed(f"the connection ended without a response: {_words(error)}") from error

    def _connect(self, target: Target) -> socket.socket:
        problem: RequestFailed = RequestFailed("no address")
        for address in self._addresses(target)[:MAX_TRIED]:
            try:
                return self._open(address, target)
            except RequestFailed as error:
                problem = error
        raise problem

    def _open(self, address: Address, target: Target) -> socket.socket:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            with eventlet.Timeout(CONNECT_SECONDS, RequestTimeout(f"no connection within {CONNECT_SECONDS:g} s")):
                connection.connect((str(address), target.port))
            if target.scheme == "http":
                return connection
            with eventlet.Timeout(HANDSHAKE_SECONDS, RequestTimeout(f"no TLS within {HANDSHAKE_SECONDS:g} s")):
                return self._tls.wrap_socket(connection, server_hostname=target.host)
        except OSError as error:  # also of TLS
            connection.close()
            raise RequestFailed(f"no connection: {_words(error)}") from error
        except BaseException:
            connection.close()
            raise


class _Received(io.RawIOBase):
    """What a connection sends, up to MAX_RECEIVED bytes; then it seems to end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._left = connection, MAX_RECEIVED
        self._file = io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._left)
        count = self._connection.recv_into(buffer, wanted) if wanted else 0
        self._left -= count
        return count

    def makefile(self, *_: Any) -> Any:
        """Return it as the file that HTTPResponse reads, which takes this object for a socket. There is one buffer."""
        return self._file


def _head(target: Target, headers: Mapping[str, str], length: int) -> bytes:
    lines = {
        "Host": target.authority,
        "User-Agent": USER_AGENT,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
        "Content-Length": str(length),
    }
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    if text.count("\n") != len(lines):
        raise ValueError("a header has a line break")
    return f"POST {target.path} HTTP/1.1\r\n{text}\r\n".encode("latin-1")


def _read(connection: socket.socket) -> Response:
    received: Any = _Received(connection)
    heads = [HTTPResponse(received, method="POST")]
    heads[0].begin()
    while heads[-1].status < 200 and len(heads) <= MAX_INTERIM:
        heads.append(HTTPResponse(received, method="POST"))  # keep the one before: the end of its life closes the file
        heads[-1].begin()
    response = heads[-1]
    return Response(response.status, _beginning(response), response.headers.get("Retry-After"))


def _beginning(response: HTTPResponse) -> bytes:
    """Return what arrives of the body within BODY_SECONDS. The status is what counts, so no error here is one."""
    parts: list[bytes] = []
    left = MAX_KEPT
    try:
        with eventlet.Timeout(BODY_SECONDS, False):
            while left > 0 and (part := response.read1(left)):
                parts.append(part)
                left -= len(part)
    except (OSError, HTTPException, ValueError):
        pass
    return b"".join(parts)


def _words(error: Exception) -> str:
    """Return the error in words, without what Python adds to it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return f"{type(error).__name__} {error}".strip()
