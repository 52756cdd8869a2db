"""The address of a client behind trusted proxies, from X-Forwarded-For or Forwarded (RFC 7239)."""

import ipaddress
import logging
import re
from collections.abc import Iterator, Mapping, Sequence

log = logging.getLogger(__name__)

# An IPv6 client gets at least a /64 network and may send from any address in it, so the network is counted.
IPV6_PREFIX = 64
# No path has more proxies. A header of thousands of hops must not cost more than others.
MAX_HOPS = 32
X_FORWARDED_FOR, FORWARDED = "x-forwarded-for", "forwarded"
FIRST_PRESENT = "any"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# A node of RFC 7239: an address, in brackets or not, perhaps with a port. A zone is local to the host that wrote it.
_NODE = re.compile(
    r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)(?:%[^\]]*)?\]|(?P<ipv4>[0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
    r"|(?P<ipv6>[0-9A-Fa-f:.]+)(?:%.*)?"
)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
# Some proxies write the brackets and colons of an address without the quotes that the RFC demands.
_PAIR = re.compile(rf"[ \t]*({_TOKEN})=({_QUOTED}|[^\s\",;=]*)[ \t]*(?:;|$)")


class ProxyHeaders:
    """Reads the client's address from the header that the trusted proxies write."""

    def __init__(self, proxies: Sequence[Network], header: str = FIRST_PRESENT) -> None:
        """`header` is `x-forwarded-for`, `forwarded`, or `any`: the first of them that the request has.

        Raises ValueError for anything else.
        """
        self._proxies = tuple(proxies)
        self._headers = (X_FORWARDED_FOR, FORWARDED) if header == FIRST_PRESENT else (header.lower(),)
        if not {X_FORWARDED_FOR, FORWARDED}.issuperset(self._headers):
            message = f"PROXY_HEADER must be {X_FORWARDED_FOR}, {FORWARDED} or {FIRST_PRESENT}, not {header!r}"
            raise ValueError(message)
        self._has_warned = False

    def client_address(self, peer: str, headers: Mapping[str, str]) -> str:
        """Return the address to count: the nearest one on the request's path that is no proxy of ours.

        `peer` is the address of the connection. Any client can write the header, so an address in it counts only where
        the next hop is a trusted proxy. An IPv6 client is counted by its network.
        """
        address = parse_address(peer)
        if address is None:
            return peer
        if self._is_proxy(address):
            for hop in self._hops(headers):
                previous = parse_address(hop)
                if previous is None:
                    self._warn(hop)
                    break
                address = previous
                if not self._is_proxy(address):
                    break
        if address.version == 6:
            return str(ipaddress.IPv6Network((int(address), IPV6_PREFIX), strict=False))
        return str(address)

    def _is_proxy(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._proxies)

    def _hops(self, headers: Mapping[str, str]) -> Iterator[str]:
        """Yield the hops as they are written, the nearest first."""
        name = next((name for name in self._headers if name in headers), None)
        if name == X_FORWARDED_FOR:
            yield from reversed(headers[name].rsplit(",", MAX_HOPS)[-MAX_HOPS:])
        elif name == FORWARDED:
            yield from _forwarded_hops(headers[name])

    def _warn(self, hop: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            text = (
                "a trusted proxy sent %.100r, which is no address: the rate limits count such clients as one, the proxy"
            )
            log.warning(text, hop)


def parse_address(text: str) -> Address | None:
    """Return the address that a proxy wrote, with or without port, brackets, quotes and zone; None for anything else.

    An IPv4 address in the form of IPv6 is returned as IPv4.
    """
    match = _NODE.fullmatch(_unquote(text.strip()).strip())
    if match is None:
        return None
    bracketed, ipv4, ipv6 = match.group("bracketed", "ipv4", "ipv6")
    try:
        address = ipaddress.ip_address(bracketed or ipv4 or ipv6)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def _forwarded_hops(header: str) -> Iterator[str]:
    """Yield the `for` of each element of a Forwarded header, from the last one to the first.

    It is read from its end, because the client may have written the beginning: an opening quote there must not hide
    what a proxy appended. An element that cannot be read ends the list, as itself.
    """
    element, parts = None, header.rsplit(",", MAX_HOPS)[-MAX_HOPS:]
    while parts:
        part = parts.pop()
        element = part if element is None else f"{part},{element}"  # the comma may be part of a quoted string
        if not element.strip():
            element = None
            continue
        pairs = _pairs(element)
        if pairs is not None:
            yield pairs.get("for", "")
            element = None
    if element is not None:
        yield element


def _pairs(element: str) -> dict[str, str] | None:
    """Return the parameters of an element by their names in lower case; None if it is malformed."""
    pairs, position = {}, 0
    while position < len(element):
        match = _PAIR.match(element, position)
        if match is None:
            return None
        pairs[match[1].lower()] = match[2]
        position = match.end()
    return pairs


def _unquote(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text
