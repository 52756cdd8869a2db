"""Requests of web pages from another origin (the CORS protocol of the Fetch standard), as the settings allow them.

Credentials are never allowed: the API authenticates by the access token, which no browser adds on its own.
"""

import re
from collections.abc import Iterable, Mapping

ANY = "*"
# An environment variable is parsed as YAML, where a bare * is a syntax error, so the word `any` is accepted too.
ANY_IN_SETTINGS = frozenset({"any", ANY})
MAX_AGE_SECONDS = 24 * 3600
API_HEADERS = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "X-Request-ID",
)
# The SDKs of tracing products add them to the requests of a page, which would fail if one of them were refused.
TRACING_HEADERS = (
    "b3",
    "baggage",
    "elastic-apm-traceparent",
    "newrelic",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "x-amzn-trace-id",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-cloud-trace-context",
    "x-datadog-origin",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
    "x-datadog-trace-id",
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

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")


class Cors:
    """The origins whose pages may call the API."""

    def __init__(self, origins: Iterable[str], request_headers: Iterable[str] = ()) -> None:
        """`origins` are such as `https://shop.example`, or `any`. Raises ValueError for anything else.

        `request_headers` are those that pages may send in addition to API_HEADERS and TRACING_HEADERS.
        """
        stated = {origin.lower() for origin in origins}
        self._any = not stated.isdisjoint(ANY_IN_SETTINGS)
        self._origins = stated - ANY_IN_SETTINGS
        for origin in self._origins:
            if not _ORIGIN.fullmatch(origin):
                message = f"CORS_ORIGINS must list origins such as https://shop.example, or any: not {origin!r}"
                raise ValueError(message)
        more = tuple(request_headers)
        for name in more:
            if not _HEADER.fullmatch(name):
                raise ValueError(f"CORS_REQUEST_HEADERS must list names of headers, not {name!r}")
        self._request_headers = ", ".join((*API_HEADERS, *TRACING_HEADERS, *more))

    def headers(self, request: Mapping[str, str]) -> dict[str, str]:
        """Return the response headers that tell a browser whether the requesting page may read the response."""
        if self._any:
            return {"Access-Control-Allow-Origin": ANY, "Access-Control-Expose-Headers": EXPOSED_HEADERS}
        # The response depends on the origin, so a cache must not reuse it for another one.
        headers = {"Vary": "Origin"}
        origin = request.get("origin", "").lower()
        if origin in self._origins:
            headers |= {
                "Access-Control-Allow-Origin": request["origin"],
                "Access-Control-Expose-Headers": EXPOSED_HEADERS,
            }
        return headers

    def preflight(self, request: Mapping[str, str], allow: str) -> dict[str, str]:
        """Return the headers of the response to OPTIONS; `allow` lists the methods of the path."""
        headers = {"Allow": allow}
        granted = self.headers(request)
        if "access-control-request-method" in request and "Access-Control-Allow-Origin" in granted:
            headers |= {
                "Access-Control-Allow-Methods": allow,
                "Access-Control-Allow-Headers": self._request_headers,
                "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
            }
        return headers
