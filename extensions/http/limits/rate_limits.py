"""Rate limits of the gateway: counted in Redis, reported in the RateLimit fields, enforced with 429.

The fields follow draft-ietf-httpapi-ratelimit-headers: `q` requests in `w` seconds are allowed, `r` remain, and the
quota is full again in `t` seconds. A limit on concurrent requests (`qu`) has no seconds.
"""

import ipaddress
from collections.abc import Iterable

from nameko import config
from nameko.extensions import SharedExtension

from contracts.errors import RateLimited
from contracts.users import TooManyFailedLogins
from extensions.cache.rate_limits import Policy, Quota, RateLimits
from extensions.http.limits.client_address import FIRST_PRESENT, ProxyHeaders
from extensions.http.message.errors import append_item
from extensions.http.message.request import HttpRequest
from extensions.runtime.parsed_settings import by_environment, listed

PER_ADDRESS, PER_USER = "per_address", "per_user"


class RequestLimits(SharedExtension):
    """The rate limits of one gateway, by their names in config.yml. A limit that is off is not counted at all."""

    limits = RateLimits()

    def __init__(self) -> None:
        super().__init__()
        self._policies: dict[str, Policy] = {}
        self._reported_only: dict[str, str] = {}
        self._proxy_headers = ProxyHeaders(())

    def setup(self) -> None:
        """Read the settings. Raises ValueError for an invalid one."""
        for name, setting in by_environment("RATE_LIMITS", {}).items():
            policy = Policy.of(name, setting)
            if policy is not None:
                self._policies[name] = policy
        proxies = [ipaddress.ip_network(proxy) for proxy in listed(config.get("TRUSTED_PROXIES"))]
        self._proxy_headers = ProxyHeaders(proxies, config.get("PROXY_HEADER", FIRST_PRESENT))
        failed_logins = Policy.of(TooManyFailedLogins.policy, config.get("FAILED_LOGINS_PER_ACCOUNT_AND_ADDRESS"))
        # The users service counts failed logins, because only it knows which login failed. We report the policy.
        self._reported_only = {"login": _policy_item(failed_logins)} if failed_logins else {}

    def admit_address(self, request: HttpRequest, route_limit: str | None = None, *, public_only: bool = False) -> None:
        """Count a request for its client address, also under the limit named `route_limit`. Raises RateLimited.

        With `public_only`, private and loopback addresses are not counted.
        """
        if route_limit in self._reported_only:
            request.limit_headers["RateLimit-Policy"] = self._reported_only[route_limit]
        names = [name for name in (PER_ADDRESS, route_limit) if name in self._policies]
        if names or route_limit:
            request.address = self._proxy_headers.client_address(request.peer, request.headers)
        if names and not (public_only and _is_private(request.address)):
            self._spend(request, names, request.address)

    def admit_user(self, request: HttpRequest) -> None:
        """Count a request for its authenticated user, if there is one. Raises RateLimited."""
        if request.token is not None and PER_USER in self._policies:
            self._spend(request, [PER_USER], str(request.token.user_id))

    def _spend(self, request: HttpRequest, names: Iterable[str], subject: str) -> None:
        quotas = self.limits.consume(*((self._policies[name], subject) for name in names))
        for quota in quotas:
            append_item(request.limit_headers, "RateLimit-Policy", _policy_item(quota.policy))
            state = f'"{quota.policy.name}";r={quota.remaining};t={quota.reset_after}'
            append_item(request.limit_headers, "RateLimit", state)
        exceeded = max(quotas, key=_retry_after, default=None)
        if exceeded is not None and exceeded.retry_after:
            raise RateLimited.by(exceeded.policy.quota, exceeded.policy.seconds, exceeded.retry_after)


def _is_private(address: str) -> bool:
    """Tell whether a result of ProxyHeaders.client_address belongs to this machine or to a private network."""
    try:
        return ipaddress.ip_network(address).is_private
    except ValueError:  # the client disconnected before its address was read
        return False


def _policy_item(policy: Policy) -> str:
    return f'"{policy.name}";q={policy.quota};w={policy.seconds}'


def _retry_after(quota: Quota) -> int:
    return quota.retry_after
