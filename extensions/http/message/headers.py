"""The headers that every answer has, so that no browser and no cache does with it what it was not meant for."""

from collections.abc import Mapping

EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Nothing that we answer is a page; a route that answers one states a policy of its own.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
# Over plain HTTP browsers ignore it, and in development it would spoil localhost for everything else on it.
IN_PRODUCTION = {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"}
PRIVATE, SHARED = "no-store", "no-cache"


def fixed_headers(*, production: bool) -> dict[str, str]:
    """Return those that are the same on every answer of this process."""
    return EVERYWHERE | (IN_PRODUCTION if production else {})


def cache_control(method: str, headers: Mapping[str, str], status: int) -> str:
    """Return who may keep an answer: nobody, unless it is what everybody is told; then it is asked for each time."""
    is_public = method in {"GET", "HEAD"} and "authorization" not in headers and status < 400
    return SHARED if is_public else PRIVATE
