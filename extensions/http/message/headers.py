"""Security and cache headers of every response."""

from collections.abc import Mapping

EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Responses are not pages, so nothing may be loaded; a route that returns a page sets its own policy.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
# Not in development: browsers would demand HTTPS of every other server on localhost as well.
IN_PRODUCTION = {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"}
PRIVATE, SHARED = "no-store", "no-cache"


def fixed_headers(*, production: bool) -> dict[str, str]:
    """Return the headers that are the same on every response of this process."""
    return EVERYWHERE | (IN_PRODUCTION if production else {})


def cache_control(method: str, headers: Mapping[str, str], status: int) -> str:
    """Return the Cache-Control value: only a public success may be stored, and it is revalidated on each use."""
    is_public = method in {"GET", "HEAD"} and "authorization" not in headers and status < 400
    return SHARED if is_public else PRIVATE
