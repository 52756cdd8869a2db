import gzip

import pytest

from extensions.http.message.errors import NotAcceptable
from extensions.http.message.request import HttpRequest
from extensions.http.message.static_files import StaticFile, accepts_gzip
from extensions.observability.traces import Trace

FILE = StaticFile(b"body { margin: 0 }" * 20, "text/css; charset=utf-8", {"Cache-Control": "no-cache"})


def respond(method="GET", **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return FILE.response(HttpRequest(method, "/page.css", "", sent, Trace()))


def test_a_file_is_sent_with_its_type_and_headers():
    response = respond()
    assert (response.status, response.body) == (200, FILE.content)
    assert response.headers["Content-Type"] == "text/css; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in response.headers


def test_a_client_that_takes_gzip_gets_it_under_another_etag():
    plain, compressed = respond(), respond(accept_encoding="br, gzip")
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(compressed.body) == plain.body
    assert len(compressed.body) < len(plain.body)
    assert compressed.headers["ETag"] != plain.headers["ETag"]


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_known_version_is_not_sent_again(coding):
    tag = respond(accept_encoding=coding).headers["ETag"]
    assert respond(accept_encoding=coding, if_none_match=tag).status == 304
    assert respond(accept_encoding=coding, if_none_match='"other"').status == 200


def test_a_client_that_accepts_only_json_gets_the_available_type():
    with pytest.raises(NotAcceptable, match="text/css"):
        respond(accept="application/json")


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False),
        ("br", False),
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip ; q=0.0, br", False),
        ("gzip;q=1.0", True),
        ("x-gzip-like", False),
    ],
)
def test_which_clients_take_gzip(header, accepted):
    assert accepts_gzip(header) is accepted
