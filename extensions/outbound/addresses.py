"""Which addresses a request that a user caused may go to: public ones, by a table of those that are not.

Python's `ipaddress` is not enough: it calls translated and tunnelled addresses (64:ff9b::/96, 2002::/16), site-local
and multicast ones global, and 100.64.0.0/10 not private. The table follows the registries of special-purpose addresses
of IANA, with a few addresses that cloud providers use for their machines.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

_DENIED = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by the customers of a provider",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "the host of a machine at a cloud provider",
    "169.254.0.0/16": "link-local; the metadata of a machine at a cloud provider",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "assigned to protocols",
    "192.0.2.0/24": "documentation",
    "192.31.196.0/24": "reserved for DNS",
    "192.52.193.0/24": "multicast relays",
    "192.88.99.0/24": "relays of 6to4",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "reserved for DNS",
    "198.18.0.0/15": "measurements",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved, and broadcast",
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::/96": "IPv4 in IPv6",
    "::ffff:0:0/96": "IPv4 in IPv6",
    "::ffff:0:0:0/96": "IPv4 in IPv6",
    "64:ff9b::/96": "translated to IPv4",
    "64:ff9b:1::/48": "translated to IPv4",
    "100::/64": "discarded",
    "2001::/23": "assigned to protocols, among them Teredo",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "2620:4f:8000::/48": "reserved for DNS",
    "3ffe::/16": "a network that was given up",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}
DENIED: dict[IPv4Network | IPv6Network, str] = {ip_network(network): reason for network, reason in _DENIED.items()}
GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All public IPv6 addresses are in it. So a block that IANA assigns later is refused until it is added here."""
LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


def refusal(address: Address) -> str | None:
    """Return why no request may go to this address; None for a public one."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "an address with a zone"
    reason = next(_reasons(address), None)
    if reason is None and isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return "not public"
    return reason


def is_loopback(address: Address) -> bool:
    """Tell whether this is an address of this machine itself; one that only contains such an address is none."""
    return any(address in network for network in LOOPBACK) and getattr(address, "scope_id", None) is None


def parse(text: str) -> Address | None:
    """Return the address that `text` spells in its one canonical form; None for everything else."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address if str(address) == text else None


def _reasons(address: Address) -> Iterator[str]:
    """Yield the reasons of the narrowest networks first."""
    found = [network for network in DENIED if network.version == address.version and address in network]
    yield from (DENIED[network] for network in sorted(found, key=lambda network: -network.prefixlen))
