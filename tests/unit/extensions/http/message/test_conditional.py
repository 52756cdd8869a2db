import json

import pytest

from contracts.errors import PreconditionFailed, ValidationFailed
from contracts.etags import etag, require_match
from contracts.users import VerifiedToken
from extensions.http.message.conditional import add_etag, precondition
from extensions.http.message.request import HttpRequest
from extensions.http.message.response import Response
from extensions.observability.traces import Trace

BODY = {"id": "1", "name": "çay"}
TAG = etag(BODY)


def request(method="GET", **headers):
    return HttpRequest(method, "/things/1", "", {k.replace("_", "-"): v for k, v in headers.items()}, Trace())


def test_an_etag_is_quoted_and_differs_for_different_bodies():
    assert TAG.startswith('"')
    assert TAG.endswith('"')
    assert len({TAG, etag(BODY | {"id": "2"}), etag(BODY | {"more": None}), etag({})}) == 4


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("header", "is_current"),
    [
        (None, False),
        ("{tag}", True),
        ("W/{tag}", True),
        ('"other", W/"x",{tag}', True),
        (', "a" ,, {tag} ,', True),
        (" * ", True),
        ('"other"', False),
        ('W/"other", ""', False),
    ],
)
def test_if_none_match(method, header, is_current):
    sent = {} if header is None else {"if_none_match": header.format(tag=TAG)}
    headers = {}
    assert add_etag(headers, BODY, request(method, **sent)) is is_current
    assert headers == {"ETag": TAG}


def test_services_and_gateway_compute_the_same_etag_for_a_resource():
    for character in map(chr, (*range(0x300), 0x2028, 0xFFFF, 0x1F375)):
        body = {"id": 1.5, "name": [f"a{character}b", None, True]}
        response = Response(body)
        assert etag(response.etag_source()) == etag(body), ascii(character)
        assert json.loads(response.finalize(request()).content) == body
    assert etag(Response(b"\xff").etag_source()) == etag(b"\xff")


@pytest.mark.parametrize("header", ["unquoted", '"a" "b"', "", ",", '"a", *', '"a', 'w/"a"', '"a b"'])
@pytest.mark.parametrize("name", ["If-None-Match", "If-Match"])
def test_a_malformed_header_is_refused_with_its_name(name, header):
    with pytest.raises(ValidationFailed) as refused:
        add_etag({}, BODY, request(**{name.lower(): header}))
    assert [error.field for error in refused.value.errors] == [name]


@pytest.mark.parametrize("header", ['"other"', 'W/"other"', f'"other", {TAG[:-2]}"', f'{TAG[:-1]}-other"'])
def test_if_match_of_a_read(header):
    with pytest.raises(PreconditionFailed):
        add_etag({}, BODY, request(if_match=header))
    assert not add_etag({}, BODY, request(if_match=f"{header}, {TAG}"))
    assert not add_etag({}, BODY, request(if_match="*"))


COMPRESSED = [
    f"W/{TAG}",
    *(f'{TAG[:-1]}{suffix}"' for suffix in ("-gzip", "--gzip", "-br", "-zstd")),
    f'W/{TAG[:-1]}-br"',
]


@pytest.mark.parametrize("header", COMPRESSED)
def test_a_tag_that_a_proxy_changed_because_it_compressed_the_response_matches(header):
    assert not add_etag({}, BODY, request(if_match=header))
    assert add_etag({}, BODY, request(if_none_match=header))
    assert precondition({"if-match": header}) == {"if_match": [TAG]}


def test_the_response_to_a_write_has_an_etag_and_is_always_sent():
    headers = {}
    assert not add_etag(headers, BODY, request("PATCH", if_match='"what it was"'))
    assert headers == {"ETag": TAG}


def test_the_precondition_of_a_write():
    assert precondition({}) == {}
    assert precondition({"if-match": '"a",W/"b"'}) == {"if_match": ['"a"', '"b"']}
    assert precondition({"if-match": "*"}) == {"if_match": ["*"]}
    with pytest.raises(ValidationFailed, match="If-None-Match"):
        precondition({"if-none-match": "*"})


@pytest.mark.parametrize("invalid", ['"a"', 7, {}, [7], [None]])
def test_an_owner_requires_a_list_of_etags(invalid):
    with pytest.raises(ValidationFailed, match="if_match"):
        require_match(view(), invalid)


def test_an_owner_compares_etags():
    own = etag(view().to_dict())
    for matching in (None, ["*"], ['"other"', own]):
        require_match(view(), matching)
    for stale in ([], ['"other"'], [f"W/{own}"], [own.strip('"')]):
        with pytest.raises(PreconditionFailed):
            require_match(view(), stale)


def view():
    return VerifiedToken.model_validate(
        {
            "user_id": "0190a6b2-0000-7000-8000-000000000001",
            "roles": ["customer"],
            "expires_at": "2026-01-31T08:30:00Z",
        }
    )
