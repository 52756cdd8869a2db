"""Rate limits for users and addresses, and the limit on failed logins, which stops password guessing."""

import os
import re
import signal

import eventlet
import httpx
import pytest
from nameko import config

from contracts.ids import new_id
from extensions.cache import connection as cache
from extensions.messaging import listener
from qa.chaos.proxy import CACHE, Proxies
from tests.service.gateway.responses import PASSWORD, ok
from tests.stopwatch import Stopwatch
from tests.support import TEST_TIMEOUT_SECONDS, eventually
from users.service import UsersService

OFF = {"per_user": "off", "per_address": "off", "login": "off", "register": "off"}


@pytest.fixture
def limited(gateway, run_service):
    """Start a gateway and users under some limits: `limited(per_user="5/3600")`."""
    containers = []

    def start(failed_logins="off", from_everywhere="off", environment="development", proxies=(), **limits):
        settings = {
            "RATE_LIMITS": {"elsewhere": OFF | limits, "production": config["RATE_LIMITS"]["production"]},
            "FAILED_LOGINS_PER_ACCOUNT_AND_ADDRESS": failed_logins,
            "FAILED_LOGINS_PER_ACCOUNT": from_everywhere,
            "TRUSTED_PROXIES": list(proxies),
            "ENVIRONMENT": environment,
        }
        with config.patch(settings):
            if not containers:
                containers.append(run_service(UsersService))
            api = gateway()
        eventually(lambda: api.get("/users/me").status_code == 401)
        return api

    return start


def limit_of(response, name):
    """(remaining, policy) of one limit in the headers of a response; None where they are absent."""
    remaining = re.search(rf'"{name}";r=(\d+);t=\d+', response.headers.get("ratelimit", ""))
    policy = re.search(rf'"{name}";(q=\d+;w=\d+)', response.headers.get("ratelimit-policy", ""))
    return remaining and int(remaining[1]), policy and policy[1]


def assert_refused(response):
    problem = response.json()
    assert (response.status_code, problem["code"]) == (429, "RATE_LIMITED")
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0


class TestUsers:
    def test_the_quota_of_a_user_holds_for_all_gateways_together(self, limited, login):
        first, second = limited(per_user="3/3600"), limited(per_user="3/3600")
        me, other = login("customer"), login("customer")
        for remaining, api in ((2, first), (1, second), (0, first)):
            response = api.get("/users/me", headers=me)
            assert response.status_code == 404
            assert limit_of(response, "per_user") == (remaining, "q=3;w=3600")
        refused = second.get("/users/me", headers=me)
        assert_refused(refused)
        assert limit_of(refused, "per_user") == (0, "q=3;w=3600")
        assert first.get("/users/me", headers=other).status_code == 404
        assert first.get("/users/me").status_code == 401

    def test_a_request_that_is_refused_for_another_reason_counts(self, limited, login):
        api, me = limited(per_user="2/3600"), login("customer")
        assert api.get("/users", headers=me).status_code == 403
        assert api.get("/orders?limit=0", headers=me).status_code == 400
        assert_refused(api.get("/users/me", headers=me))


class TestAddresses:
    def test_an_address_has_a_quota_without_a_token_or_with_an_invalid_one(self, limited, login):
        api = limited(per_address="4/3600")  # the fixture has sent one request
        for remaining in (2, 1, 0):
            response = api.get("/users/me", headers={"Authorization": "Bearer guess"})
            assert response.status_code == 401
            assert limit_of(response, "per_address") == (remaining, "q=4;w=3600")
        assert_refused(api.get("/users/me", headers=login("customer")))
        assert api.get("/health/live").status_code == 200

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/nowhere", 404), ("DELETE", "/users", 405), ("OPTIONS", "/users/me", 204)],
    )
    def test_a_request_that_matches_no_route_counts(self, limited, method, path, status):
        api = limited(per_address="2/3600")
        response = api.request(method, path)
        assert (response.status_code, limit_of(response, "per_address")) == (status, (0, "q=2;w=3600"))
        assert_refused(api.request(method, path))

    def test_probes_count_from_public_addresses_only(self, limited):
        api = limited(per_address="1/3600", proxies=["127.0.0.0/8"])

        def get(path, address):
            return api.get(path, headers={"X-Forwarded-For": address})

        for address in ("8.8.4.4", "2001:4860::1"):
            assert limit_of(get("/health/ready", address), "per_address")[0] == 0
            assert_refused(get("/health/ready", address))
            assert get("/health/live", address).status_code == 200
        for address in ("127.0.0.1", "10.1.2.3", "fd00::1"):
            assert [get("/health/ready", address).json()["status"] for _ in range(3)] == ["degraded"] * 3

    def test_a_trusted_proxy_names_the_address(self, limited):
        api = limited(per_address="1/3600", proxies=["127.0.0.0/8"])
        for address in ("203.0.113.1", "203.0.113.2"):
            headers = {"X-Forwarded-For": f"10.9.9.9, {address}"}
            assert api.get("/users/me", headers=headers).status_code == 401
            assert_refused(api.get("/users/me", headers=headers))

    def test_an_untrusted_peer_cannot_name_an_address(self, limited):
        api = limited(per_address="2/3600")
        assert api.get("/users/me", headers={"X-Forwarded-For": "203.0.113.1"}).status_code == 401
        assert_refused(api.get("/users/me", headers={"X-Forwarded-For": "203.0.113.2"}))

    def test_logins_and_registrations_have_their_own_limits(self, limited):
        api = limited(login="1/3600", register="1/3600", per_address="100/3600")
        for path in ("/users/login", "/users/register"):
            response = api.post(path, json={"email": "nobody", "password": "x"})
            assert response.status_code == 400
            assert limit_of(response, path.rpartition("/")[2]) == (0, "q=1;w=3600")
            assert limit_of(response, "per_address")[1] == "q=100;w=3600"
            assert_refused(api.post(path, json={"email": "nobody", "password": "x"}))


class TestDefaults:
    def test_outside_production_only_failed_logins_are_limited(self, gateway, run_service):
        run_service(UsersService)
        api = gateway()
        eventually(lambda: api.get("/users/me").status_code == 401)
        assert "ratelimit-policy" not in api.get("/users/me").headers
        assert "ratelimit-policy" not in api.post("/users/register", json={}).headers
        assert api.post("/users/login", json={}).headers["ratelimit-policy"] == '"failed_logins";q=10;w=900'

    def test_in_production_users_and_addresses_are_limited_too(self, limited, login, monkeypatch):
        for module in (listener, cache):  # the passwords of the tests are those of development
            monkeypatch.setattr(module, "require_own_secrets", lambda *_, **__: None)
        api = limited(environment="production")
        response = api.get("/users/me", headers=login("customer"))
        assert limit_of(response, "per_user")[1] == "q=1200;w=60"
        assert limit_of(response, "per_address")[1] == "q=2400;w=60"
        assert limit_of(api.post("/users/login", json={}), "login")[1] == "q=60;w=60"
        assert limit_of(api.post("/users/register", json={}), "register")[1] == "q=30;w=600"


ACCOUNT = {"email": "ayse@example.com", "password": PASSWORD}
UNKNOWN = {"email": "nobody@example.com", "password": PASSWORD}


class TestFailedLogins:
    def fail(self, api, account=ACCOUNT, headers=None):
        return api.post("/users/login", json=account | {"password": "wrong horse 7 battery"}, headers=headers)

    def test_after_too_many_failures_even_the_right_password_is_refused(self, limited):
        api = limited("3/3600")
        ok(api.post("/users/register", json=ACCOUNT), 201)
        assert [self.fail(api).json()["code"] for _ in range(4)] == ["INVALID_CREDENTIALS"] * 3 + ["RATE_LIMITED"]
        refused = api.post("/users/login", json=ACCOUNT)
        assert_refused(refused)
        assert limit_of(refused, "failed_logins") == (0, "q=3;w=3600")
        assert refused.json()["detail"].endswith(f" Try again in {refused.headers['retry-after']} s.")
        spelled = api.post("/users/login", json=ACCOUNT | {"email": " AYSE@Example.com"})
        assert_refused(spelled)

    def test_repeated_registrations_with_another_password_count(self, limited):
        """Who knows a key would otherwise learn, as often as it likes, whether a password is the right one."""
        api = limited("3/3600", proxies=["127.0.0.0/8"])
        key = {"Idempotency-Key": "k-1"}
        home, stranger = key | {"X-Forwarded-For": "8.8.4.4"}, key | {"X-Forwarded-For": "9.9.9.9"}
        first = ok(api.post("/users/register", json=ACCOUNT, headers=home), 201)
        guesses = [ACCOUNT | {"password": f"wrong horse {number} battery"} for number in range(3)]
        answers = [api.post("/users/register", json=guess, headers=stranger) for guess in guesses]
        assert [answer.json()["code"] for answer in answers] == ["IDEMPOTENCY_KEY_REUSED"] * 3
        for account in (*guesses, ACCOUNT):
            assert_refused(api.post("/users/register", json=account, headers=stranger))
        assert_refused(api.post("/users/login", json=ACCOUNT, headers=stranger))
        assert ok(api.post("/users/register", json=ACCOUNT, headers=home), 201) == first

    def test_responses_do_not_reveal_whether_an_account_exists(self, limited):
        api = limited("2/3600")
        ok(api.post("/users/register", json=ACCOUNT), 201)
        observed = []
        for account in (ACCOUNT, UNKNOWN):
            responses = [self.fail(api, account), self.fail(api, account), self.fail(api, account)]
            observed.append(
                [
                    ({**response.json(), "request_id": ""}, sorted(response.headers), response.headers.get("ratelimit"))
                    for response in responses
                ]
            )
        assert observed[0] == observed[1]

    def test_a_successful_login_resets_the_count(self, limited):
        api = limited("3/3600")
        ok(api.post("/users/register", json=ACCOUNT), 201)
        for _ in range(3):
            assert self.fail(api).status_code == self.fail(api).status_code == 401
            ok(api.post("/users/login", json=ACCOUNT))

    def test_other_accounts_are_not_affected(self, limited):
        api = limited("1/3600")
        ok(api.post("/users/register", json=ACCOUNT), 201)
        self.fail(api, UNKNOWN)
        assert_refused(self.fail(api, UNKNOWN))
        ok(api.post("/users/login", json=ACCOUNT))

    def test_failures_from_one_address_do_not_affect_another_address(self, limited):
        api = limited("2/3600", "100/3600", proxies=["127.0.0.0/8"])
        ok(api.post("/users/register", json=ACCOUNT), 201)
        home, stranger = {"X-Forwarded-For": "8.8.4.4"}, {"X-Forwarded-For": "9.9.9.9"}
        assert [self.fail(api, headers=stranger).status_code for _ in range(10)] == [401] * 2 + [429] * 8
        assert_refused(api.post("/users/login", json=ACCOUNT, headers=stranger))
        ok(api.post("/users/login", json=ACCOUNT, headers=home))
        assert_refused(api.post("/users/login", json=ACCOUNT, headers=stranger))  # not reset by that login

    def test_failures_from_all_addresses_together_are_limited(self, limited):
        """Attempts count, refusals do not. A successful login from another address does not reset the count."""
        api = limited("2/3600", "5/3600", proxies=["127.0.0.0/8"])
        ok(api.post("/users/register", json=ACCOUNT), 201)
        addresses = [{"X-Forwarded-For": f"9.9.9.{number}"} for number in range(4)]
        codes = [self.fail(api, headers=address).status_code for address in addresses[:2] for _ in range(3)]
        assert codes == [401, 401, 429] * 2
        ok(api.post("/users/login", json=ACCOUNT, headers=addresses[2]))
        assert [self.fail(api, headers=addresses[2]).status_code for _ in range(2)] == [401, 429]
        assert_refused(api.post("/users/login", json=ACCOUNT, headers=addresses[3]))

    def test_the_limit_expires(self, limited):
        api = limited("1/2")
        ok(api.post("/users/register", json=ACCOUNT), 201)
        self.fail(api)
        assert_refused(api.post("/users/login", json=ACCOUNT))
        eventually(lambda: api.post("/users/login", json=ACCOUNT).status_code == 200)

    def test_of_concurrent_guesses_the_right_one_is_refused(self, limited):
        api = limited("3/3600")
        ok(api.post("/users/register", json=ACCOUNT), 201)

        def guess(number):
            right = number == 10
            with httpx.Client(base_url=str(api.base_url), timeout=20, verify=False) as client:
                response = client.post("/users/login", json=ACCOUNT) if right else self.fail(client)
            return response.status_code

        responses = list(eventlet.GreenPool(16).imap(guess, range(16)))
        assert 200 not in responses
        assert responses.count(401) <= 3
        assert set(responses) <= {401, 429, 503, 504}

    def test_concurrent_logins_with_the_right_password_succeed(self, limited):
        api = limited("3/3600")
        ok(api.post("/users/register", json=ACCOUNT), 201)

        def log_in(_):
            with httpx.Client(base_url=str(api.base_url), timeout=20, verify=False) as client:
                return client.post("/users/login", json=ACCOUNT).status_code

        # 503 and 504: on a slow machine not every hash is computed in time
        assert set(eventlet.GreenPool(16).imap(log_in, range(16))) <= {200, 503, 504}

    def test_without_redis_nothing_is_limited(self, limited, servers):
        api = limited("1/3600", per_user="1/3600", per_address="1000/3600")
        ok(api.post("/users/register", json=ACCOUNT), 201)
        os.kill(servers.redis.pid, signal.SIGSTOP)
        try:
            assert self.fail(api).status_code == 401
            assert ok(api.post("/users/login", json=ACCOUNT))
            started = Stopwatch()
            responses = [api.get("/health/live") and api.get("/users/me") for _ in range(20)]
            assert {response.status_code for response in responses} == {401}
            assert started.seconds < 5
        finally:
            os.kill(servers.redis.pid, signal.SIGCONT)


@pytest.fixture
def slow_redis(servers, monkeypatch):
    """Redis behind a proxy that adds a tenth of a second to each round trip, and is never too slow."""
    proxies = Proxies()
    monkeypatch.setitem(config.data, "REDIS_TIMEOUT_MS", 1000 * TEST_TIMEOUT_SECONDS)
    monkeypatch.setitem(config.data, CACHE, proxies.start(servers.addresses())[CACHE])
    with proxies.fault([CACHE], "delay", seconds=0.05):
        yield
    proxies.stop()


def test_cache_reads_leave_connections_for_the_rate_limits(slow_redis, limited, login):
    """Without a free connection Redis would count as unavailable, and nothing would be limited."""
    api, me = limited(per_user="1000/3600"), login("customer")
    with httpx.Client(
        base_url=api.base_url, timeout=20, limits=httpx.Limits(max_connections=200), verify=False
    ) as client:
        responses = eventlet.GreenPool(150).imap(lambda _: client.get(f"/products/{new_id()}", headers=me), range(150))
        assert [limit_of(response, "per_user")[1] for response in responses] == ["q=1000;w=3600"] * 150
