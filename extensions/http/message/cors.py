"""Calls from pages of another origin (the Fetch standard's CORS protocol), as far as the settings allow them.

Credentials are never allowed: what counts is the access token, which no browser sends by itself.
"""

import re
from collections.abc import Iterable, Mapping

ANY = "*"
# As an environment variable, a bare * is no YAML.
ANY_IN_SETTINGS = frozenset({"any", ANY})
MAX_AGE_SECONDS = 24 * 3600
REQUEST_HEADERS = (
    "Accept, Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, traceparent, X-Request-ID"
)
EXPOSED = (
    "ETag",
    "Idempotent-Replayed",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)
EXPOSED_HEADERS = ", ".join(EXPOSED)

_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")


class Cors:
    """Which origins may call."""

    def __init__(self, origins: Iterable[str]) -> None:
        """`origins` are like `https://shop.example`, or `any`. Raises ValueError for what is neither."""
        stated = {origin.lower() for origin in origins}
        self._any = not stated.isdisjoint(ANY_IN_SETTINGS)
        self._origins = stated - ANY_IN_SETTINGS
        for origin in self._origins:
            if not _ORIGIN.fullmatch(origin):
                message = f"CORS_ORIGINS must have origins such as https://shop.example, or any: not {origin!r}"
                raise ValueError(message)

    def headers(self, request: Mapping[str, str]) -> dict[str, str]:
        """Return what tells a browser whether the page that asked may see the answer."""
        if self._any:
            return {"Access-Control-Allow-Origin": ANY, "Access-Control-Expose-Headers": EXPOSED_HEADERS}
        # An answer that a cache keeps is good for one origin, or for none.
        answer = {"Vary": "Origin"}
        origin = request.get("origin", "").lower()
        if origin in self._origins:
            answer |= {
                "Access-Control-Allow-Origin": request["origin"],
                "Access-Control-Expose-Headers": EXPOSED_HEADERS,
            }
        return answer

    def preflight(self, request: Mapping[str, str], allow: str) -> dict[str, str]:
        """Return the headers of an answer to OPTIONS: what the path takes, and from pages of which origin."""
        answer = {"Allow": allow}
        granted = self.headers(request)
        if "access-control-request-method" in request and "Access-Control-Allow-Origin" in granted:
            answer |= {
                "Access-Control-Allow-Methods": allow,
                "Access-Control-Allow-Headers": REQUEST_HEADERS,
                "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
            }
        return answer
