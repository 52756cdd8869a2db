"""How often one user and one address may ask: counted in Redis, told in the RateLimit fields, refused with 429.

The fields are those of draft-ietf-httpapi-ratelimit-headers: `q` requests in `w` seconds are allowed, `r` are left, and
in `t` seconds all are there again. Of requests at the same time (`qu`) no seconds are told.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from nameko import config
from nameko.extensions import SharedExtension

from contracts.errors import RateLimited
from contracts.users import TooManyFailedLogins
from extensions.cache.rate_limits import Policy, Quota, RateLimits
from extensions.http.message.errors import add_item
from extensions.http.message.request import HttpRequest
from extensions.runtime.settings import by_environment, listed

PER_ADDRESS, PER_USER = "per_address", "per_user"
# Whoever is given IPv6 is given at least such a network, and may send from any address in it.
IPV6_PREFIX = 64

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class RequestLimits(SharedExtension):
    """The limits of one gateway, by their names in config.yml. What is off costs nothing."""

    limits = RateLimits()

    def __init__(self) -> None:
        super().__init__()
        self._policies: dict[str, Policy] = {}
        self._told: dict[str, str] = {}
        self._proxies: tuple[Network, ...] = ()

    def setup(self) -> None:
        """Read the settings. Raises ValueError for a wrong one."""
        for name, setting in by_environment("RATE_LIMITS", {}).items():
            policy = Policy.of(name, setting)
            if policy is not None:
                self._policies[name] = policy
        self._proxies = tuple(ipaddress.ip_network(proxy) for proxy in listed(config.get("TRUSTED_PROXIES")))
        failed_logins = Policy.of(TooManyFailedLogins.policy, config.get("FAILED_LOGINS_PER_ACCOUNT_AND_ADDRESS"))
        # Counted by users, which knows what failed; told here, with what is counted here.
        self._told = {"login": _policy(failed_logins)} if failed_logins else {}

    def admit_address(self, request: HttpRequest, own: str | None = None, *, from_outside: bool = False) -> None:
        """Count a request for where it comes from, also under the route's `own` limit. Raises RateLimited.

        With `from_outside`, addresses that no stranger can have are not counted.
        """
        if own in self._told:
            request.limit_headers["RateLimit-Policy"] = self._told[own]
        names = [name for name in (PER_ADDRESS, own) if name in self._policies]
        if names or own:
            forwarded_for = request.headers.get("x-forwarded-for", "")
            request.address = client_address(request.peer, forwarded_for, self._proxies)
        if names and not (from_outside and _is_ours(request.address)):
            self._spend(request, names, request.address)

    def admit_user(self, request: HttpRequest) -> None:
        """Count a request for who asks. Raises RateLimited."""
        if request.token is not None and PER_USER in self._policies:
            self._spend(request, [PER_USER], str(request.token.user_id))

    def _spend(self, request: HttpRequest, names: Iterable[str], subject: str) -> None:
        quotas = self.limits.consume(*((self._policies[name], subject) for name in names))
        for quota in quotas:
            add_item(request.limit_headers, "RateLimit-Policy", _policy(quota.policy))
            add_item(
                request.limit_headers, "RateLimit", f'"{quota.policy.name}";r={quota.remaining};t={quota.reset_after}'
            )
        refused = max(quotas, key=_wait, default=None)
        if refused is not None and refused.retry_after:
            raise RateLimited.by(refused.policy.quota, refused.policy.seconds, refused.retry_after)


def client_address(peer: str, forwarded_for: str, proxies: Sequence[Network]) -> str:
    """Return whose address to count: the one nearest to us that is no proxy of ours.

    X-Forwarded-For is what somebody says: each address in it is believed only as far as the one that said it is.
    An IPv6 client is counted by its network.
    """
    named = [address.strip() for address in forwarded_for.split(",")]
    address = _parsed(peer)
    while address is not None and named and _is_within(address, proxies):
        said = _parsed(named.pop())
        if said is None:
            break
        address = said
    if address is None:
        return peer
    if address.version == 6:
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def _is_within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _is_ours(address: str) -> bool:
    """Tell whether what client_address returned is of this machine or of a private network."""
    try:
        return ipaddress.ip_network(address).is_private
    except ValueError:  # it had gone before we could see where it came from
        return False


def _policy(policy: Policy) -> str:
    return f'"{policy.name}";q={policy.quota};w={policy.seconds}'


def _wait(quota: Quota) -> int:
    return quota.retry_after
