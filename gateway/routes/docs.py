"""/openapi.json and /docs: what the API is, for programs and for people."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nameko import config

from extensions.http.message.request import Access, HttpRequest
from extensions.http.message.response import Response
from extensions.http.message.strict_json import dump
from extensions.http.openapi.document import document
from extensions.http.routing.route import route
from extensions.runtime.parsed_settings import is_production

VERSION = "0.1.0"
INFO: dict[str, Any] = {
    "title": "Order suite",
    "version": VERSION,
    "license": {"name": "MIT", "identifier": "MIT"},
    "description": """\
An online shop's orders: accounts, catalog, orders, stock, payments, notifications.

- Every path works with and without its trailing slash. `HEAD` works wherever `GET` does, `OPTIONS` everywhere.
- JSON in, JSON out. A body with an unknown field is refused, and so is a query.
- Ids are UUIDs, times are RFC 3339 in UTC, money is a decimal string with two places beside its `currency`.
- Lists are `{"items": [...], "next_cursor": "..."}`; the `Link` header has the next page too.
- Errors are RFC 9457 problem details. `code` is for programs; 400 names each wrong field in `errors`.
- 503 means that nothing was done; 504 means that the outcome is unknown: repeat a `POST` with its `Idempotency-Key`.
- Send `X-Request-ID` to find your request in our logs; every response has one.
""",
}
# For readers who have only this page and a demo shop (deploy/seed.py). Not shown in production.
A_FIRST_ORDER = """
### A first order, from login to delivery

This gateway does not run in production, so its shop can have demo accounts: `demo@example.com`, a customer, and
`admin@example.com`, an administrator. The password of both is `Demo-pass-2026!`, unless `DEMO_PASSWORD` was set when
the shop was started.

1. Log in as the customer, at the top of this page or by `POST /users/login`. Then send its `access_token` with each
   request, as `Authorization: Bearer ...`.
2. `GET /products` with `TEA-RIZE-1000` as its `sku`, or without a `sku` for all products. Copy the `id` of the product.
3. `POST /orders` with `{"items": [{"product_id": "...", "quantity": 1}]}`; replace the dots with this `id`. Copy the
   `id` of the order.
4. `GET /orders/{order_id}`: after a second its `status` is `CONFIRMED`.
5. Log in as the administrator: `POST /orders/{order_id}/ship`, then `POST /orders/{order_id}/deliver`.
"""
PAGES = Path(__file__).parents[1] / "pages"
CACHE = {"Cache-Control": "public, max-age=3600"}
# This gateway serves the script and the style of Swagger UI itself; its images are data: URLs in the style.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Routes:
    """The routes of the API's description."""

    @route("GET", "/openapi.json", access=Access.ANYONE)
    def get_openapi(self, _request: HttpRequest) -> Any:
        """Describe this API, as OpenAPI 3.1."""
        gateway: Any = type(self)
        return Response(_document(gateway, is_production(config)), headers=CACHE, is_shared=True)

    @route("GET", "/docs", access=Access.ANYONE, produces="text/html")
    def get_docs(self, _request: HttpRequest) -> Any:
        """Show the API as a page, where a reader can log in and send requests."""
        return Response(_page("docs.html"), headers={"Content-Security-Policy": POLICY}, is_shared=True)

    @route("GET", "/docs/docs.js", access=Access.ANYONE, produces="text/javascript")
    def get_docs_script(self, _request: HttpRequest) -> Any:
        """Return the page's own script."""
        return Response(_page("docs.js"), headers=CACHE, is_shared=True)

    @route("GET", "/docs/swagger-ui.js", access=Access.ANYONE, produces="text/javascript")
    def get_docs_viewer(self, _request: HttpRequest) -> Any:
        """Return the script of Swagger UI."""
        return Response(_installed("swagger-ui-bundle.js"), headers=CACHE, is_shared=True)

    @route("GET", "/docs/docs.css", access=Access.ANYONE, produces="text/css")
    def get_docs_style(self, _request: HttpRequest) -> Any:
        """Return the styles of Swagger UI and of the page."""
        return Response(_styles(), headers=CACHE, is_shared=True)


@cache
def _document(service: type, in_production: bool) -> bytes:
    description = INFO["description"] + ("" if in_production else A_FIRST_ORDER)
    return dump(document(service, {**INFO, "description": description}))


@cache
def _page(name: str) -> bytes:
    return (PAGES / name).read_bytes()


@cache
def _styles() -> bytes:
    return _installed("swagger-ui.css") + _page("docs.css")


@cache
def _installed(name: str) -> bytes:
    """Read a file of the package swagger-ui-py without importing it: only its static files are needed."""
    spec = find_spec("swagger_ui")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "static" / name).read_bytes()
