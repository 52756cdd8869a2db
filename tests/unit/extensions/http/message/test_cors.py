import pytest

from extensions.http.message.cors import EXPOSED, EXPOSED_HEADERS, Cors
from extensions.http.openapi.problems import HEADERS

SHOP = "https://shop.example"
PREFLIGHT = {"origin": SHOP, "access-control-request-method": "PATCH"}


def test_any_origin_may_see_every_answer():
    for setting in (["any"], ["*"], ["Any", SHOP]):
        assert Cors(setting).headers({}) == {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": EXPOSED_HEADERS,
        }


def test_a_listed_origin_is_named_and_caches_are_told():
    cors = Cors([SHOP, "http://localhost:3000"])
    allowed = cors.headers({"origin": SHOP})
    assert (allowed["Access-Control-Allow-Origin"], allowed["Vary"]) == (SHOP, "Origin")
    for other in ({}, {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": SHOP + ":444"}):
        assert cors.headers(other) == {"Vary": "Origin"}


def test_a_page_may_read_every_header_that_the_document_promises():
    assert set(EXPOSED) == set(HEADERS)


def test_no_origin_by_default_in_production():
    assert Cors([]).headers({"origin": SHOP}) == {"Vary": "Origin"}


def test_credentials_are_never_allowed():
    for cors in (Cors(["any"]), Cors([SHOP])):
        assert "Access-Control-Allow-Credentials" not in cors.preflight(PREFLIGHT, "GET")


def test_a_preflight_is_told_what_the_path_takes():
    answer = Cors([SHOP]).preflight(PREFLIGHT, "GET, PATCH")
    assert answer["Access-Control-Allow-Methods"] == answer["Allow"] == "GET, PATCH"
    for needed in ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"):
        assert needed in answer["Access-Control-Allow-Headers"]
    assert answer["Access-Control-Max-Age"] == "86400"


def test_a_preflight_from_elsewhere_and_plain_options_are_told_no_more_than_allow():
    cors = Cors([SHOP])
    assert cors.preflight(PREFLIGHT | {"origin": "https://evil.example"}, "GET") == {"Allow": "GET"}
    assert cors.preflight({}, "GET") == {"Allow": "GET"}


@pytest.mark.parametrize(
    "origin", ["shop.example", "https://shop.example/", "https://*.example", "null", "ftp://a.b", ""]
)
def test_what_is_no_origin_is_refused_at_the_start(origin):
    with pytest.raises(ValueError, match="CORS_ORIGINS"):
        Cors([origin])
