"""Resolves names over DNS without blocking the process.

`socket.getaddrinfo` blocks the whole process: eventlet's own replacement is switched off (it costs each process 15 MB).
dnspython uses sockets that eventlet has patched, so only the greenlet waits. It reads the name servers of
/etc/resolv.conf, and neither /etc/hosts nor search domains: a name means the same here as everywhere else.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import eventlet

from extensions.outbound.addresses import Address, parse
from extensions.outbound.results import HostUnknown
from extensions.outbound.targets import TargetRefused

LOOKUP_SECONDS = 2.5
"""For both kinds of addresses together."""
MAX_ADDRESSES = 32
MAX_CACHED = 1000
RELOAD_SECONDS = 60.0
"""How long a process uses the name servers that it has read."""

Resolve = Callable[[str], Sequence[Address]]
"""Returns all addresses of a name. Raises HostUnknown."""


class DnsResolver:
    """Resolves names. Answers are cached as long as they say."""

    def __init__(self) -> None:
        self._resolver: Any = None
        self._loaded = 0.0

    def __call__(self, name: str) -> Sequence[Address]:
        """Return all IPv4 addresses of `name`, then all IPv6 addresses. Raises HostUnknown, TargetRefused."""
        try:
            with eventlet.Timeout(LOOKUP_SECONDS, HostUnknown(f"no response about {name} from the name servers")):
                found = [*self._ask(name, "A"), *self._ask(name, "AAAA")]
        except OSError as error:
            raise HostUnknown(f"{name} cannot be resolved: {error}") from error
        if not found:
            raise HostUnknown(f"{name} has no address")
        if len(found) > MAX_ADDRESSES:
            raise TargetRefused(f"has a host with more than {MAX_ADDRESSES} addresses")
        return found

    def _ask(self, name: str, kind: str) -> list[Address]:
        import dns.exception  # late: only a process that resolves names pays for the memory
        import dns.name
        import dns.resolver

        try:
            answer = self._configured().resolve(
                dns.name.from_text(name), kind, lifetime=LOOKUP_SECONDS, search=False, raise_on_no_answer=False
            )
        except dns.resolver.NXDOMAIN:
            raise HostUnknown(f"{name} does not exist") from None
        except dns.exception.DNSException as error:
            raise HostUnknown(f"{name} cannot be resolved: {type(error).__name__}") from error
        addresses = [parse(record.address) for record in answer.rrset or ()]
        if None in addresses:
            raise HostUnknown(f"the answer about {name} cannot be read")
        return [address for address in addresses if address is not None]

    def _configured(self) -> Any:
        import dns.resolver

        if self._resolver is None or time.monotonic() - self._loaded > RELOAD_SECONDS:
            cache = getattr(self._resolver, "cache", None) or dns.resolver.LRUCache(MAX_CACHED)
            self._resolver, self._loaded = dns.resolver.Resolver(), time.monotonic()
            self._resolver.cache = cache
        return self._resolver
