import ipaddress

import pytest

from extensions.cache.rate_limits import Policy
from extensions.http.limits.rate_limits import client_address

PROXIES = tuple(ipaddress.ip_network(network) for network in ("10.0.0.0/8", "192.0.2.1", "fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "counted"),
    [
        ("198.51.100.7", "", "198.51.100.7"),
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),  # not a proxy: any client can send the header
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),  # the client sent the first address itself
        ("10.0.0.1", "203.0.113.9, 192.0.2.1,10.2.3.4", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.9, nonsense", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"),
        ("fd00::1", "2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("", "203.0.113.9", ""),
    ],
)
def test_the_counted_address_is_the_nearest_one_that_is_no_proxy_of_ours(peer, forwarded_for, counted):
    assert client_address(peer, forwarded_for, PROXIES) == counted


def test_without_trusted_proxies_the_header_is_ignored():
    assert client_address("10.0.0.1", "203.0.113.9", ()) == "10.0.0.1"


@pytest.mark.parametrize(
    ("setting", "policy"), [("600/60", Policy("x", 600, 60)), ("off", None), (False, None), ("", None)]
)
def test_valid_settings(setting, policy):
    assert Policy.of("x", setting) == policy


@pytest.mark.parametrize("setting", ["600", 600, "0/60", "600/0", "-1/60", "600/60/60", "many", True, "6.5/60"])
def test_an_invalid_setting_is_refused_with_its_name(setting):
    with pytest.raises(ValueError, match="the rate limit per_user must be requests/seconds"):
        Policy.of("per_user", setting)
