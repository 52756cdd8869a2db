"""URLs and addresses that must be refused, and some that must not."""

from ipaddress import ip_address

import pytest

from extensions.outbound import addresses
from extensions.outbound.client import Outbound
from extensions.outbound.targets import TargetRefused, parse_target

# Addresses that are not public. Python calls many of them global.
_CLOSED = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.1.2.3 168.63.129.16
169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.8 192.0.0.192 192.0.2.1 192.31.196.1
192.52.193.1 192.88.99.1 192.168.1.1 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.250 240.0.0.1 255.255.255.255
:: ::1 ::7f00:1 ::a9fe:a9fe ::ffff:7f00:1 ::ffff:a9fe:a9fe ::ffff:808:808 ::ffff:0:7f00:1 64:ff9b::a9fe:a9fe
64:ff9b::808:808 64:ff9b:1::1 64:ff9b:1:ffff::a00:1 100::1 2001::1 2001:0:808:808::1 2001:10::1 2001:20::1 2001:db8::1
2002:7f00:1:: 2002:a9fe:a9fe:: 2620:4f:8000::1 3ffe::1 3fff::1 3fff:fff:ffff::1 4000::1 5f00::1 8000::1 fc00::1 fd00::1
fd00:ec2::254 fe80::1 febf::1 fec0::1 feff::1 ff02::1 ff0e::1
"""
_OPEN = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255
172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 198.17.255.255 198.20.0.0 223.255.255.255 2001:200::1
2606:4700:4700::1111 2a00:1450:4001::1 2003::1 3fff:1000::1
"""
CLOSED, OPEN = _CLOSED.split(), _OPEN.split()

# URLs that are refused before any name is resolved, also where loopback is allowed.
MALFORMED = [
    "",
    " https://example.com/",
    "https://example.com/ ",
    "https://example.com/a b",
    "https://example.com/\r\nX-Evil: 1",
    "https://example.com/\x00",
    "https://example.com/#fragment",
    "https://example.com/%zz",
    "https://example.com/ç",
    "https://example.com\\@127.0.0.1/",
    "https:/example.com/",
    "https:example.com",
    "//example.com/",
    "/hook",
    "example.com",
    "HTTPS://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com:6379/_",
    "javascript:alert(1)",
    "https://",
    "https:///hook",
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://example.com@127.0.0.1/",
    "https://@example.com/",
    "https://Example.com/",
    "https://example.com./",
    "https://example..com/",
    "https://.example.com/",
    "https://-example.com/",
    "https://example-.com/",
    "https://exa_mple.com/",
    "https://exämple.com/",
    "https://\uff45xample.com/",
    "https://①②⑦.⓪.⓪.①/",
    "https://127。0。0。1/",
    "https://%31%32%37.0.0.1/",
    "https://example.com%2f@127.0.0.1/",
    f"https://{'a' * 64}.com/",
    f"https://{'a.' * 127}com/",
    f"https://example.com/{'a' * 2048}",
    "https://intranet/",
    "https://evil.localhost/",
    # other spellings of IPv4 addresses
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://0/",
    "https://127.0.0.1./",
    "https://127.0.0.01/",
    "https://256.256.256.256/",
    "https://1.2.3.4.5/",
    "https://example.0x7f/",
    "https://example.123/",
    # other spellings of IPv6 addresses
    "https://[::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::0001]/",
    "https://[::FFFF:7f00:1]/",
    "https://[127.0.0.1]/",
    "https://[::1/",
    "https://::1/",
    "https://[example.com]/",
    "https://[2606:4700::1]x/",
    # ports
    "https://example.com:/",
    "https://example.com:0/",
    "https://example.com:22/",
    "https://example.com:25/",
    "https://example.com:1023/",
    "https://example.com:6379/",
    "https://example.com:11211/",
    "https://example.com:65536/",
    "https://example.com:0443/",
    "https://example.com:99999999/",
    "https://example.com:-1/",
    "https://example.com:443:443/",
]


def in_url(address):
    return f"https://[{address}]/" if ":" in address else f"https://{address}/"


def test_the_corpus_has_the_promised_size():
    assert len(set(CLOSED)) + len(set(MALFORMED)) >= 120


@pytest.mark.parametrize("address", CLOSED)
def test_an_address_that_is_not_public_is_refused(address):
    assert addresses.refusal(ip_address(address))
    with pytest.raises(TargetRefused):
        parse_target(in_url(address))
    with pytest.raises(TargetRefused, match="not a public address"):
        Outbound(allow_loopback=False, resolve=lambda _: [ip_address(address)]).check("https://example.com/")


@pytest.mark.parametrize("address", OPEN)
def test_a_public_address_is_not_refused(address):
    assert addresses.refusal(ip_address(address)) is None
    assert str(parse_target(in_url(address)).address) == address


@pytest.mark.parametrize("url", MALFORMED)
@pytest.mark.parametrize("allow_loopback", [False, True])
def test_a_url_with_a_second_reading_is_refused(url, allow_loopback):
    with pytest.raises(TargetRefused):
        parse_target(url, allow_loopback=allow_loopback)


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://example.com", "example.com", "/"),
        ("https://example.com/", "example.com", "/"),
        ("https://example.com:443/a", "example.com", "/a"),
        ("https://example.com:8443/a?b=c&d=%20", "example.com:8443", "/a?b=c&d=%20"),
        ("https://xn--exmple-cua.com/", "xn--exmple-cua.com", "/"),
        ("https://a.b.c.example.com:80/", "a.b.c.example.com:80", "/"),
        ("https://8.8.8.8/", "8.8.8.8", "/"),
        ("https://[2606:4700:4700::1111]:8443/", "[2606:4700:4700::1111]:8443", "/"),
    ],
)
def test_a_plain_url_is_read(url, authority, path):
    target = parse_target(url)
    assert (target.authority, target.path) == (authority, path)


def test_plain_http_and_loopback_need_the_setting():
    for url in (
        "http://example.com/",
        "http://127.0.0.1:9000/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
    ):
        with pytest.raises(TargetRefused):
            parse_target(url)
        assert parse_target(url, allow_loopback=True)


@pytest.mark.parametrize("address", sorted(set(CLOSED) - {"127.0.0.1", "127.1.2.3", "::1"}))
def test_the_setting_allows_nothing_but_loopback(address):
    with pytest.raises(TargetRefused):
        parse_target(in_url(address), allow_loopback=True)
    with pytest.raises(TargetRefused):
        Outbound(allow_loopback=True, resolve=lambda _: [ip_address(address)]).check("https://example.com/")


def test_a_zone_is_refused():
    assert addresses.refusal(ip_address("2606:4700::1%eth0"))
    assert not addresses.is_loopback(ip_address("::1%eth0"))
    with pytest.raises(TargetRefused):
        Outbound(allow_loopback=True, resolve=lambda _: [ip_address("::1%eth0")]).check("https://example.com/")
