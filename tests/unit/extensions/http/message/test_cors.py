import pytest

from extensions.http.message.cors import EXPOSED, EXPOSED_HEADERS, Cors
from extensions.http.openapi.problems import HEADERS

SHOP = "https://shop.example"
PREFLIGHT = {"origin": SHOP, "access-control-request-method": "PATCH"}


def test_the_setting_any_allows_every_origin():
    for setting in (["any"], ["*"], ["Any", SHOP]):
        assert Cors(setting).headers({}) == {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": EXPOSED_HEADERS,
        }


def test_a_listed_origin_is_allowed_and_the_response_varies_by_origin():
    cors = Cors([SHOP, "http://localhost:3000"])
    allowed = cors.headers({"origin": SHOP})
    assert (allowed["Access-Control-Allow-Origin"], allowed["Vary"]) == (SHOP, "Origin")
    for other in ({}, {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": SHOP + ":444"}):
        assert cors.headers(other) == {"Vary": "Origin"}


def test_pages_may_read_every_documented_header():
    assert set(EXPOSED) == set(HEADERS)


def test_no_origin_by_default_in_production():
    assert Cors([]).headers({"origin": SHOP}) == {"Vary": "Origin"}


def test_credentials_are_never_allowed():
    for cors in (Cors(["any"]), Cors([SHOP])):
        assert "Access-Control-Allow-Credentials" not in cors.preflight(PREFLIGHT, "GET")


def test_a_preflight_response_lists_methods_and_headers():
    headers = Cors([SHOP]).preflight(PREFLIGHT, "GET, PATCH")
    assert headers["Access-Control-Allow-Methods"] == headers["Allow"] == "GET, PATCH"
    for needed in ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"):
        assert needed in headers["Access-Control-Allow-Headers"]
    assert headers["Access-Control-Max-Age"] == "86400"


@pytest.mark.parametrize("name", ["baggage", "tracestate", "traceparent", "sentry-trace", "x-datadog-trace-id", "b3"])
def test_pages_may_send_the_headers_of_tracing_sdks(name):
    allowed = Cors([SHOP]).preflight(PREFLIGHT, "GET")["Access-Control-Allow-Headers"]
    assert name in allowed.split(", ")


def test_a_setting_allows_further_request_headers():
    allowed = Cors([SHOP], ["X-Client-Version"]).preflight(PREFLIGHT, "GET")["Access-Control-Allow-Headers"]
    assert allowed.endswith(", X-Client-Version")
    for invalid in ("two words", "a:b", "*\r\nSet-Cookie: a", ""):
        with pytest.raises(ValueError, match="CORS_REQUEST_HEADERS"):
            Cors([SHOP], [invalid])


def test_a_preflight_of_another_origin_and_plain_options_get_only_allow():
    cors = Cors([SHOP])
    assert cors.preflight(PREFLIGHT | {"origin": "https://evil.example"}, "GET") == {"Allow": "GET"}
    assert cors.preflight({}, "GET") == {"Allow": "GET"}


@pytest.mark.parametrize(
    "origin", ["shop.example", "https://shop.example/", "https://*.example", "null", "ftp://a.b", ""]
)
def test_a_setting_that_is_no_origin_is_refused(origin):
    with pytest.raises(ValueError, match="CORS_ORIGINS"):
        Cors([origin])
