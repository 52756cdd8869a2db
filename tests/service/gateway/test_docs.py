"""The documentation page of the API, as a browser receives it."""

from unittest.mock import Mock

import pytest
from nameko import config

from deploy import seed
from gateway.routes.docs import INFO


@pytest.fixture
def api(gateway):
    services = Mock()
    services.users.list_changed = lambda **_asked: {"items": []}
    return gateway(services=services)


def test_the_document_is_served(api):
    told = api.get("/openapi.json").json()
    assert (told["openapi"], told["info"]["title"]) == ("3.1.0", INFO["title"])
    assert "/orders" in told["paths"]


def test_the_demo_accounts_are_listed_outside_production_only(api):
    told = api.get("/openapi.json").json()["info"]["description"]
    for name in (seed.CUSTOMER, seed.ADMIN, seed.DEFAULT_PASSWORD, "DEMO_PASSWORD", seed.PRODUCTS[0].sku):
        assert f"`{name}`" in told
    with config.patch({"ENVIRONMENT": "production"}):
        assert api.get("/openapi.json").json()["info"] == INFO
    for name in (seed.CUSTOMER, seed.ADMIN, seed.DEFAULT_PASSWORD, "demo"):
        assert name not in str(INFO)


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("/docs", "text/html,application/xhtml+xml;q=0.9", "text/html"),
        ("/docs/", "text/*", "text/html"),
        ("/docs/docs.js", "*/*", "text/javascript"),
        ("/docs/swagger-ui.js", "*/*", "text/javascript"),
        ("/docs/docs.css", "text/css,*/*;q=0.1", "text/css"),
    ],
)
def test_the_page_and_its_resources_are_served(api, path, accept, kind):
    answer = api.get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.content
    assert api.head(path).headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/swagger-ui.js"])
def test_unchanged_resources_are_not_sent_again(api, path):
    tag = api.get(path).headers["etag"]
    again = api.get(path, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert api.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_page_may_load_only_from_its_own_origin(api):
    policy = api.get("/docs").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_a_client_that_accepts_only_json_gets_the_available_types(api):
    refused = api.get("/docs", headers={"Accept": "application/json"})
    assert (refused.status_code, refused.json()["code"]) == (406, "NOT_ACCEPTABLE")
    assert "text/html" in refused.json()["detail"]
