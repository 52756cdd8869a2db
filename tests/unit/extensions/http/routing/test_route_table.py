from types import SimpleNamespace

import pytest

from extensions.http.message.errors import MethodNotAllowed, PathNotFound
from extensions.http.routing.route_table import MAX_SEGMENTS, RouteTable, _segments


def route(method, path, *aliases):
    return SimpleNamespace(method=method, path=path, aliases=aliases)


LIST = route("GET", "/orders", "/orders/all")
CREATE = route("POST", "/orders", "/orders/create-order")
GET = route("GET", "/orders/{order_id}")
CANCEL = route("POST", "/orders/{order_id}/cancel")
TABLE = RouteTable([LIST, CREATE, GET, CANCEL])


def test_a_path_of_thousands_of_segments_is_not_decoded():
    """Decoding all of them would take several milliseconds."""
    with pytest.raises(PathNotFound):
        TABLE.match("GET", "/%41" * 2000)
    assert len(_segments("/%41" * 2000)) == MAX_SEGMENTS + 1


@pytest.mark.parametrize(
    ("method", "path", "found", "arguments"),
    [
        ("GET", "/orders", LIST, {}),
        ("GET", "/orders/", LIST, {}),
        ("HEAD", "/orders", LIST, {}),
        ("GET", "/orders/all", LIST, {}),
        ("GET", "/orders/all/", LIST, {}),
        ("POST", "/orders/create-order/", CREATE, {}),
        ("GET", "/orders/1", GET, {"order_id": "1"}),
        ("GET", "/orders/%31/", GET, {"order_id": "1"}),
        ("GET", "/orders/a%2Fcancel", GET, {"order_id": "a/cancel"}),
        ("POST", "/orders/1/cancel/", CANCEL, {"order_id": "1"}),
    ],
)
def test_a_route_is_found(method, path, found, arguments):
    assert TABLE.match(method, path) == (found, arguments)


@pytest.mark.parametrize(
    "path", ["/", "", "*", "/order", "/orders//", "//orders", "/orders/1/cancel/x", "/orders//cancel", "/Orders"]
)
def test_an_unknown_path_is_not_found(path):
    with pytest.raises(PathNotFound):
        TABLE.match("GET", path)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/orders", "GET, HEAD, OPTIONS, POST"),
        ("GET", "/orders/create-order", "OPTIONS, POST"),
        ("POST", "/orders/all", "GET, HEAD, OPTIONS"),
        ("HEAD", "/orders/1/cancel", "OPTIONS, POST"),
        ("get", "/orders/1", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_refused_with_the_allowed_ones(method, path, allowed):
    with pytest.raises(MethodNotAllowed) as refused:
        TABLE.match(method, path)
    assert refused.value.allowed == allowed


def test_two_routes_for_one_method_and_path_are_refused():
    with pytest.raises(ValueError, match="two routes for GET /orders/all"):
        RouteTable([LIST, route("GET", "/orders/all")])


def test_two_parameter_names_for_one_segment_are_refused():
    with pytest.raises(ValueError, match="two names"):
        RouteTable([GET, route("GET", "/orders/{id}/timeline")])


def test_an_asterisk_allows_the_methods_of_all_paths():
    assert TABLE.allowed("*") == ["GET", "HEAD", "OPTIONS", "POST"]
    with pytest.raises(PathNotFound):
        TABLE.allowed("/*")
