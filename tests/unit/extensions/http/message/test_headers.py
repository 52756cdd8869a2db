import pytest

from extensions.http.message.headers import cache_control, fixed_headers


def test_https_is_required_in_production_only():
    assert "max-age=31536000" in fixed_headers(production=True)["Strict-Transport-Security"]
    assert "Strict-Transport-Security" not in fixed_headers(production=False)


@pytest.mark.parametrize("production", [True, False])
def test_security_headers_do_not_depend_on_the_environment(production):
    headers = fixed_headers(production=production)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize(
    ("method", "headers", "status", "expected"),
    [
        ("GET", {}, 200, "no-cache"),
        ("HEAD", {}, 304, "no-cache"),
        ("GET", {"authorization": "Bearer x"}, 200, "no-store"),
        ("POST", {}, 200, "no-store"),
        ("GET", {}, 404, "no-store"),
        ("GET", {}, 503, "no-store"),
    ],
)
def test_only_a_public_success_may_be_stored(method, headers, status, expected):
    assert cache_control(method, headers, status) == expected
