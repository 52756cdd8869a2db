"""The URL of a target, in one spelling only: what is read here is what is resolved, connected to and sent.

Parsers of URLs differ in what they make of userinfo, backslashes, blanks, zones, numbers as hosts and other letters.
So everything is refused that has a second reading.
"""

import re
from dataclasses import dataclass

from extensions.outbound import addresses
from extensions.outbound.addresses import Address

MAX_URL = 2048
MAX_HOST = 253
DEFAULT_PORTS = {"http": 80, "https": 443}
FIRST_FREE_PORT = 1024
"""Below it only the default ports are used: the others belong to services that are no web servers."""
LOCALHOST = "localhost"
# TCP services that speak to everyone who connects, and take text for commands.
REFUSED_PORTS = frozenset({2049, 3306, 5432, 5672, 6000, 6379, 6667, 9200, 11211, 27017})

_PATH = r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*"
_URL = re.compile(rf"(https?)://(\[[^\[\]/?#@\\]*\]|[^\[\]/?#@:\\]+)(?::([0-9]+))?({_PATH})?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)


class TargetRefused(Exception):
    """No request may go to this URL. The text says why, in words for the person who stated it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that was read. `address` is set where the host is an address."""

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None = None

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_target(url: str, *, allow_loopback: bool = False) -> Target:
    """Read a URL. Raises TargetRefused. The addresses of a name are checked when it is resolved."""
    if len(url) > MAX_URL:
        raise TargetRefused(f"must have at most {MAX_URL} characters")
    match = _URL.fullmatch(url)
    if match is None:
        raise TargetRefused(
            "must be an URL such as https://example.com/hook: lower-case scheme, no user name, no fragment, and only "
            "characters that need no escape"
        )
    scheme, host, port_text, path = match.groups()
    if scheme == "http" and not allow_loopback:
        raise TargetRefused("must begin with https://")
    return _target(scheme, host, _port(scheme, port_text), path or "/", allow_loopback=allow_loopback)


def check_address(address: Address, *, allow_loopback: bool = False) -> None:
    """Raise TargetRefused unless requests may go to this address."""
    if allow_loopback and addresses.is_loopback(address):
        return
    if (reason := addresses.refusal(address)) is not None:
        raise TargetRefused(f"leads to {address}, which is not a public address ({reason})")


def _target(scheme: str, host: str, port: int, path: str, *, allow_loopback: bool) -> Target:
    if host.startswith("["):
        address = addresses.parse(host[1:-1])
        if address is None or address.version != 6:
            raise TargetRefused("has an IPv6 address that is not in its canonical form")
    elif _NUMBER.fullmatch(host.rpartition(".")[2]):  # what parsers of URLs take for an IPv4 address
        address = addresses.parse(host)
        if address is None or address.version != 4:
            raise TargetRefused("has an IPv4 address that is not in its canonical form, such as 192.0.2.1")
    else:
        _check_name(host, allow_loopback=allow_loopback)
        return Target(scheme, host, port, path)
    check_address(address, allow_loopback=allow_loopback)
    return Target(scheme, str(address), port, path, address)


def _port(scheme: str, text: str | None) -> int:
    if text is None:
        return DEFAULT_PORTS[scheme]
    port = int(text) if len(text) <= 5 and (text == "0" or not text.startswith("0")) else 0
    is_free = FIRST_FREE_PORT <= port < 65_536 and port not in REFUSED_PORTS
    if not is_free and port not in DEFAULT_PORTS.values():
        raise TargetRefused(f"has a port that is not allowed: 80, 443, or one from {FIRST_FREE_PORT} to 65535")
    return port


def _check_name(host: str, *, allow_loopback: bool) -> None:
    if host == LOCALHOST and allow_loopback:
        return
    labels = host.split(".")
    if len(host) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise TargetRefused(
            "has a host that is not a plain name: lower-case letters, digits, hyphens and dots, other letters in the "
            "form xn--..., and no dot at the end"
        )
    if len(labels) < 2 or labels[-1] == LOCALHOST:
        raise TargetRefused("has a host that is not a public name")
