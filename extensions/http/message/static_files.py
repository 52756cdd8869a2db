"""Files that a gateway serves as they are, such as a web page and its scripts. All are kept in memory, also compressed.

A path is looked up in a dict, so no request can name a file outside of it.
"""

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from extensions.http.message.conditional import NOT_MODIFIED, add_etag
from extensions.http.message.request import HttpRequest
from extensions.http.message.response import Response

IMMUTABLE = "public, max-age=31536000, immutable"
"""The Cache-Control of a file whose path changes with its content."""
METHODS = ("GET", "HEAD", "OPTIONS")

_GZIP = re.compile(r"(?:^|,)\s*(?:gzip|\*)\s*(?:;\s*q=([0-9.]+)\s*)?(?:,|$)")
_SUFFIX = "-gzip"


@dataclass(frozen=True)
class StaticFile:
    """A file: its bytes, its media type, and the headers of its responses."""

    content: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    compressed: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Compress the content once, reproducibly."""
        object.__setattr__(self, "compressed", gzip.compress(self.content, 9, mtime=0))

    def response(self, request: HttpRequest) -> Response:
        """Return the response to a GET or HEAD: 304 where the client has the current version.

        Raises NotAcceptable, PreconditionFailed, ValidationFailed.
        """
        request.check_accept(self.media_type.partition(";")[0])
        is_compressed = accepts_gzip(request.headers.get("accept-encoding", ""))
        headers = {"Content-Type": self.media_type, "Vary": "Accept-Encoding", **self.headers}
        is_known = add_etag(headers, self.content, request, is_shared=True)
        if is_compressed:
            headers["Content-Encoding"] = "gzip"
            headers["ETag"] = headers["ETag"].removesuffix('"') + _SUFFIX + '"'
        content = self.compressed if is_compressed else self.content
        return Response(content, status=NOT_MODIFIED if is_known else 200, headers=headers, is_shared=True)


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether a client takes a compressed response."""
    found = _GZIP.search(accept_encoding.lower())
    return found is not None and found[1] not in {"0", "0.", "0.0", "0.00", "0.000"}
