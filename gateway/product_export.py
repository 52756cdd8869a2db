"""The products as a file, made page by page while it is sent."""

import csv
import io
import json
from collections.abc import Iterator
from uuid import UUID
from weakref import WeakSet

from contracts.base import Actor
from contracts.catalog import CatalogRpc, CreateProduct
from contracts.imports import CSV
from extensions.http.message.errors import gateway_overloaded

FIELDS = tuple(CreateProduct.model_fields)
MOST_EXPORTS = 4
"""At the same time, in one gateway."""

_running: "WeakSet[ProductExport]" = WeakSet()


class ProductExport:
    """One export: an iterable of bytes. A page is one consistent state of its products; two pages may be two states."""

    def __init__(self, catalog: CatalogRpc, actor: Actor, media_type: str) -> None:
        """Read the first page, so that an error is a response. Raises what the call raises, ServiceUnavailable."""
        if len(_running) >= MOST_EXPORTS:
            raise gateway_overloaded()
        _running.add(self)
        self._catalog, self._actor, self._encode = catalog, actor, _csv if media_type == CSV else _json_lines
        self._is_csv = media_type == CSV
        try:
            self._page = catalog.export_products(actor=actor)["items"]
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        """Yield a header line of CSV, then the rows of each page."""
        if self._is_csv:
            yield _csv([dict(zip(FIELDS, FIELDS, strict=True))])
        while self._page:
            yield self._encode(self._page)
            self._page = self._catalog.export_products(UUID(self._page[-1]["id"]), actor=self._actor)["items"]

    def close(self) -> None:
        """Let another export begin. One whose response is never sent ends when nothing refers to it any more."""
        _running.discard(self)


def _csv(products: list[dict[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for product in products:
        writer.writerow([_cell(product[name]) for name in FIELDS])
    return text.getvalue().encode()


def _cell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json_lines(products: list[dict[str, object]]) -> bytes:
    return b"".join(
        json.dumps({name: product[name] for name in FIELDS}, ensure_ascii=False).encode() + b"\n"
        for product in products
    )
