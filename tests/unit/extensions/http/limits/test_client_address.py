import ipaddress
import logging
import time

import pytest

from extensions.http.limits.client_address import ProxyHeaders

PROXIES = tuple(ipaddress.ip_network(network) for network in ("10.0.0.0/8", "192.0.2.1", "fd00::/8"))
CLIENT = "203.0.113.9"
NETWORK = "2001:db8:1:2::/64"


def counted(peer, proxies=PROXIES, header="any", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ProxyHeaders(proxies, header).client_address(peer, named)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("198.51.100.7", "", "198.51.100.7"),
        ("198.51.100.7", CLIENT, "198.51.100.7"),  # not a proxy: any client can send the header
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", CLIENT, CLIENT),
        ("10.0.0.1", f"1.1.1.1, {CLIENT}", CLIENT),  # the client sent the first address itself
        ("10.0.0.1", f"{CLIENT}, 192.0.2.1,10.2.3.4", CLIENT),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        ("10.0.0.1", f"{CLIENT}, nonsense", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("::ffff:10.0.0.1", CLIENT, CLIENT),
        ("2001:db8:1:2:3:4:5:6", "", NETWORK),
        ("fd00::1", "2001:db8:1:2::7", NETWORK),
        ("fd00::1%eth0", "2001:db8:1:2::7", NETWORK),
        ("", CLIENT, ""),
    ],
)
def test_the_counted_address_is_the_nearest_one_that_is_no_proxy_of_ours(peer, forwarded_for, address):
    assert counted(peer, x_forwarded_for=forwarded_for) == address


SPELLINGS = [
    (f"{CLIENT}:51234", CLIENT),
    (f'"{CLIENT}:51234"', CLIENT),
    (f"  {CLIENT}\t", CLIENT),
    ("2001:db8:1:2::7", NETWORK),
    ("[2001:db8:1:2::7]", NETWORK),
    ("[2001:db8:1:2::7]:443", NETWORK),
    ('"[2001:db8:1:2::7]"', NETWORK),
    ('"[2001:DB8:1:2::7]:443"', NETWORK),
    ("fe80::1%eth0", "fe80::/64"),
    ("[fe80::1%25eth0]:443", "fe80::/64"),
    (f"::ffff:{CLIENT}", CLIENT),
    (f"[::ffff:{CLIENT}]:80", CLIENT),
    ("::1", "::/64"),
    ("[2001:db8:1:2::7", "10.0.0.1"),
    ("203.0.113.9:port", "10.0.0.1"),
    ("203.0.113.999", "10.0.0.1"),
    ("2001:db8:::7", "10.0.0.1"),
]


@pytest.mark.parametrize(("spelling", "address"), SPELLINGS)
def test_ports_brackets_quotes_and_zones_are_understood(spelling, address):
    assert counted("10.0.0.1", x_forwarded_for=spelling) == address
    assert counted("10.0.0.1", x_forwarded_for=f"1.1.1.1, {spelling},10.0.0.2:81") == address.replace(
        "10.0.0.1", "10.0.0.2"
    )


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (f"for={CLIENT}", CLIENT),
        (f'For="{CLIENT}:47011";proto=https;by=10.0.0.1', CLIENT),
        ('proto=http; for="[2001:db8:1:2::7]:4711"', NETWORK),
        ("for=[2001:db8:1:2::7]:4711", NETWORK),  # the quotes are missing
        (f'for="{CLIENT}:_obfuscated"', CLIENT),
        (f"for=1.1.1.1, for={CLIENT}, for=10.0.0.2", CLIENT),
        (f'for=1.1.1.1, host="a, for=2.2.2.2";for={CLIENT}, ,', CLIENT),
        (f'for=1.1.1.1, for={CLIENT};host="a\\",b"', CLIENT),
        (f'for="1.1.1.1, for={CLIENT}', CLIENT),  # the client sent half a quoted string itself
        (f"junk;;, for={CLIENT}", CLIENT),
        ("for=unknown", "10.0.0.1"),
        ("for=_hidden, for=10.0.0.2", "10.0.0.2"),
        ("proto=https", "10.0.0.1"),
        (f"for={CLIENT}, junk", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_the_header_of_rfc_7239_is_understood(forwarded, address):
    assert counted("10.0.0.1", forwarded=forwarded) == address
    assert counted("198.51.100.7", forwarded=forwarded) == "198.51.100.7"


def test_the_setting_says_which_of_the_two_headers_the_proxies_write():
    both = {"x_forwarded_for": "203.0.113.1", "forwarded": "for=203.0.113.2"}
    assert counted("10.0.0.1", **both) == "203.0.113.1"
    assert counted("10.0.0.1", header="forwarded", **both) == "203.0.113.2"
    assert counted("10.0.0.1", header="X-Forwarded-For", forwarded="for=203.0.113.2") == "10.0.0.1"
    with pytest.raises(ValueError, match="PROXY_HEADER must be"):
        ProxyHeaders(PROXIES, "x-real-ip")


def test_without_trusted_proxies_the_headers_are_ignored():
    assert counted("10.0.0.1", proxies=(), x_forwarded_for=CLIENT, forwarded=f"for={CLIENT}") == "10.0.0.1"


def test_what_is_no_address_is_logged_once(caplog):
    caplog.set_level(logging.WARNING)
    headers = ProxyHeaders(PROXIES)
    headers.client_address("198.51.100.7", {"x-forwarded-for": "from a client"})
    headers.client_address("10.0.0.1", {"x-forwarded-for": CLIENT})
    assert caplog.messages == []
    for hop in ("one\x1b[31m" + "x" * 500, "two"):
        headers.client_address("10.0.0.1", {"x-forwarded-for": hop})
    assert len(caplog.messages) == 1
    assert "'one\\x1b[31m" in caplog.text
    assert len(caplog.text) < 400


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
@pytest.mark.parametrize("part", ["10.0.0.1,", "for=10.0.0.1,", ",", '",', 'for="', "for=a;", "[1:"])
def test_a_long_header_costs_little(header, part):
    headers = ProxyHeaders(PROXIES)
    started = time.process_time()
    headers.client_address("10.0.0.1", {header: part * (8000 // len(part))})
    assert time.process_time() - started < 0.5
