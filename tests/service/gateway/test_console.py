"""The console's page, and the session of the browser that it uses, over HTTP."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from nameko import config

from deploy import seed
from gateway.routes.session import COOKIE, DEMO_ACCOUNTS
from tests.service.gateway.responses import PASSWORD, bearer, ok
from tests.support import TEST_TIMEOUT_SECONDS, eventually


@pytest.fixture
def browser(api, session):
    """A client with the cookie of a session, as a browser that has the console open."""
    with httpx.Client(base_url=api.base_url, timeout=TEST_TIMEOUT_SECONDS, verify=False) as browser:
        kept = browser.put("/session", json={"refresh_token": session["refresh_token"]})
        assert (kept.status_code, kept.content) == (204, b"")
        yield browser


def code(response, status):
    assert response.status_code == status, response.text
    return response.json()["code"]


class TestPage:
    def test_the_page_is_asked_for_each_time_and_its_files_never_again(self, api):
        page = api.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert page.headers["cache-control"] == "no-cache"
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        again = api.get("/", headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        path = page.text.partition('type="module" src="')[2].partition('"')[0]
        script = api.get(path)
        assert (script.status_code, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
        assert "immutable" in script.headers["cache-control"]
        assert script.headers["content-encoding"] == "gzip"

    def test_other_paths_and_methods_are_problems(self, api):
        assert code(api.get("/console/0000000000000000/app.js"), 404) == "NOT_FOUND"
        assert code(api.get("/console/../gateway/service.py"), 404) == "NOT_FOUND"
        refused = api.post("/", json={})
        assert code(refused, 405) == "METHOD_NOT_ALLOWED"
        assert refused.headers["allow"] == "GET, HEAD, OPTIONS"
        assert api.options("/").headers["allow"] == "GET, HEAD, OPTIONS"
        plain = {"Accept-Encoding": ""}
        length = api.head("/", headers=plain).headers["content-length"]
        assert length == str(len(api.get("/", headers=plain).content))

    def test_the_allowed_origin_does_not_hide_that_a_file_is_compressed(self, gateway):
        with config.patch({"CORS_ORIGINS": {"elsewhere": ["https://shop.example"]}}):
            alone = gateway()
            assert {one.strip() for one in alone.get("/").headers["vary"].split(",")} == {"Origin", "Accept-Encoding"}

    def test_only_in_development_the_page_may_call_the_supervisor(self, gateway):
        url = "http://127.0.0.1:8001"
        with config.patch({"SUPERVISOR_URL": url}):
            alone = gateway()
            assert f"connect-src 'self' {url};" in alone.get("/").headers["content-security-policy"]
            assert ok(alone.get("/session"))["supervisor_url"] == url
            with config.patch({"ENVIRONMENT": "production"}):
                assert ok(alone.get("/session"))["supervisor_url"] is None

    def test_elsewhere_it_may_not(self, api):
        assert "connect-src 'self';" in api.get("/").headers["content-security-policy"]
        assert ok(api.get("/session"))["supervisor_url"] is None


class TestSession:
    def test_the_refresh_token_is_in_a_cookie_that_no_script_can_read(self, api, session):
        kept = api.put("/session", json={"refresh_token": session["refresh_token"]})
        value, *attributes = kept.headers["set-cookie"].split("; ")
        assert set(attributes) == {"HttpOnly", "SameSite=Strict", "Path=/session", f"Max-Age={30 * 24 * 3600}"}
        assert session["refresh_token"] not in value
        assert kept.headers["cache-control"] == "no-store"

    def test_in_production_the_cookie_goes_over_tls_only_and_there_are_no_demo_accounts(self, api, session):
        assert ok(api.get("/session"))["demo_accounts"] == [one.to_dict() for one in DEMO_ACCOUNTS]
        with config.patch({"ENVIRONMENT": "production"}):
            kept = api.put("/session", json={"refresh_token": session["refresh_token"]})
            assert "Secure" in kept.headers["set-cookie"].split("; ")
            assert ok(api.get("/session"))["demo_accounts"] == []

    def test_a_renewal_returns_an_access_token_and_replaces_the_cookie(self, browser, api, session):
        assert ok(browser.get("/session"))["is_signed_in"]
        before = browser.cookies[COOKIE]
        renewed = ok(browser.post("/session"))
        assert renewed.keys() == {"user", "access_token", "token_type", "expires_in"}
        assert renewed["user"] == session["user"]
        assert browser.cookies[COOKIE] != before
        ok(api.get("/users/me", headers=bearer(renewed)))

    def test_two_tabs_that_renew_at_the_same_time_stay_signed_in(self, browser):
        cookie = browser.cookies[COOKIE]

        def renew(_):
            return httpx.post(f"{browser.base_url}/session", cookies={COOKIE: cookie}, timeout=TEST_TIMEOUT_SECONDS)

        with ThreadPoolExecutor(4) as tabs:
            replies = list(tabs.map(renew, range(8)))
        assert [one.status_code for one in replies] == [200] * 8
        assert len({one.cookies[COOKIE] for one in replies}) == 1
        assert len({one.json()["access_token"] for one in replies}) == 1
        browser.cookies.set(COOKIE, replies[0].cookies[COOKIE], path="/session")
        ok(browser.post("/session"))

    def test_signing_out_ends_the_session_and_deletes_the_cookie(self, browser, api):
        renewed, cookie = ok(browser.post("/session")), browser.cookies[COOKIE]
        ended = browser.delete("/session")
        assert (ended.status_code, ended.content) == (204, b"")
        assert "Max-Age=0" in ended.headers["set-cookie"]
        assert not ok(browser.get("/session"))["is_signed_in"]
        assert code(browser.post("/session"), 401) == "INVALID_TOKEN"
        stolen = httpx.post(f"{browser.base_url}/session", cookies={COOKIE: cookie}, timeout=TEST_TIMEOUT_SECONDS)
        assert code(stolen, 401) == "TOKEN_REVOKED"
        eventually(lambda: api.get("/users/me", headers=bearer(renewed)).status_code == 401)
        assert browser.delete("/session").status_code == 204

    def test_a_cookie_that_is_none_of_ours_is_deleted(self, api):
        sent = {"Cookie": f"{COOKIE}=none-of-ours"}
        assert code(api.post("/session", headers=sent), 401) == "INVALID_TOKEN"
        ended = api.delete("/session", headers=sent)
        assert (ended.status_code, "Max-Age=0" in ended.headers["set-cookie"]) == (204, True)
        for odd in ("=", ";;;", f"{COOKIE}", f"{COOKIE}={'x' * 5000}", 'a="\\'):
            assert code(api.post("/session", headers={"Cookie": odd}), 401) == "INVALID_TOKEN"

    def test_an_etag_of_the_session_matches_nothing(self, api, session):
        body = {"refresh_token": session["refresh_token"]}
        refused = api.put("/session", json=body, headers={"If-Match": '"any"'})
        assert code(refused, 412) == "PRECONDITION_FAILED"


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
]


class TestForeignPages:
    @pytest.mark.parametrize("headers", FOREIGN, ids=str)
    def test_they_cannot_use_the_session(self, browser, headers):
        cookie = browser.cookies[COOKIE]
        assert code(browser.post("/session", headers=headers), 403) == "PERMISSION_DENIED"
        assert code(browser.delete("/session", headers=headers), 403) == "PERMISSION_DENIED"
        sent = {"refresh_token": "of the attacker"}
        assert code(browser.put("/session", json=sent, headers=headers), 403) == "PERMISSION_DENIED"
        assert browser.cookies[COOKIE] == cookie
        ok(browser.post("/session"))

    def test_our_own_can(self, browser):
        own = str(browser.base_url).rstrip("/")
        ok(browser.post("/session", headers={"Sec-Fetch-Site": "same-origin"}))
        ok(browser.post("/session", headers={"Origin": own}))

    def test_they_are_never_allowed_to_send_the_cookie(self, browser):
        reply = browser.post("/session", headers={"Sec-Fetch-Site": "same-origin"})
        assert "access-control-allow-credentials" not in reply.headers


def test_the_demo_accounts_are_those_of_the_seed():
    assert {(one.email, one.password) for one in DEMO_ACCOUNTS} == {
        (seed.CUSTOMER, seed.DEFAULT_PASSWORD),
        (seed.ADMIN, seed.DEFAULT_PASSWORD),
    }
    assert PASSWORD != seed.DEFAULT_PASSWORD
