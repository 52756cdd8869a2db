import json

import pytest

from contracts.errors import PreconditionFailed, ValidationFailed
from contracts.etags import etag, require_match
from contracts.users import VerifiedToken
from extensions.http.message.conditional import precondition, tag
from extensions.http.message.request import HttpRequest
from extensions.http.message.response import Response
from extensions.observability.traces import Trace

BODY = {"id": "1", "name": "çay"}
TAG = etag(BODY)


def request(method="GET", **headers):
    return HttpRequest(method, "/things/1", "", {k.replace("_", "-"): v for k, v in headers.items()}, Trace())


def test_a_tag_is_quoted_and_tells_any_two_bodies_apart():
    assert TAG.startswith('"')
    assert TAG.endswith('"')
    assert len({TAG, etag(BODY | {"id": "2"}), etag(BODY | {"more": None}), etag({})}) == 4


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("header", "is_known"),
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
def test_what_the_client_has_is_not_sent(method, header, is_known):
    asked = {} if header is None else {"if_none_match": header.format(tag=TAG)}
    headers = {}
    assert tag(headers, BODY, request(method, **asked)) is is_known
    assert headers == {"ETag": TAG}


def test_a_resource_has_one_tag_wherever_it_is_made():
    for character in map(chr, (*range(0x300), 0x2028, 0xFFFF, 0x1F375)):
        body = {"id": 1.5, "name": [f"a{character}b", None, True]}
        answer = Response(body)
        assert etag(answer.tagged()) == etag(body), ascii(character)
        assert json.loads(answer.finished(request()).content) == body
    assert etag(Response(b"\xff").tagged()) == etag(b"\xff")


@pytest.mark.parametrize("header", ["unquoted", '"a" "b"', "", ",", '"a", *', '"a', 'w/"a"', '"a b"'])
@pytest.mark.parametrize("name", ["If-None-Match", "If-Match"])
def test_what_is_no_tag_is_refused_by_its_headers_name(name, header):
    with pytest.raises(ValidationFailed) as refused:
        tag({}, BODY, request(**{name.lower(): header}))
    assert [error.field for error in refused.value.errors] == [name]


@pytest.mark.parametrize("header", ['"other"', f"W/{TAG}"])
def test_a_read_may_insist_and_a_weak_tag_proves_nothing(header):
    with pytest.raises(PreconditionFailed):
        tag({}, BODY, request(if_match=header))
    assert not tag({}, BODY, request(if_match=f"{header}, {TAG}"))
    assert not tag({}, BODY, request(if_match="*"))


def test_the_answer_to_a_write_has_its_tag_and_is_always_sent():
    headers = {}
    assert not tag(headers, BODY, request("PATCH", if_match='"what it was"'))
    assert headers == {"ETag": TAG}


def test_what_a_write_passes_on():
    assert precondition({}) == {}
    assert precondition({"if-match": '"a",W/"b"'}) == {"if_match": ['"a"', 'W/"b"']}
    assert precondition({"if-match": "*"}) == {"if_match": ["*"]}
    with pytest.raises(ValidationFailed, match="If-None-Match"):
        precondition({"if-none-match": "*"})


@pytest.mark.parametrize("unfit", ['"a"', 7, {}, [7], [None]])
def test_what_an_owner_is_given_is_a_list_of_tags(unfit):
    with pytest.raises(ValidationFailed, match="if_match"):
        require_match(view(), unfit)


def test_an_owner_compares():
    own = etag(view().to_dict())
    for fits in (None, ["*"], ['"other"', own]):
        require_match(view(), fits)
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
