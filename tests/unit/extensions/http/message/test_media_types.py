import pytest

from extensions.http.message import media_types as media


@pytest.mark.parametrize(
    "accept",
    [
        "",
        " , ",
        "*/*",
        "application/json",
        "Application/JSON",
        "application/problem+json",
        "text/html, application/*;q=0.8",
        "text/html,*/*; q=0.1",
        "application/json;q=0.001",
        "text/*;q=0, application/json",
        "*/*;q=0, application/json",
        "application/json; charset=utf-8",
        "application/json;q=",
        "application/json;q=x",
    ],
)
def test_json_is_accepted(accept):
    assert media.accepts(accept, media.JSON)


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/xml, text/*",
        "application/vnd.example+json",
        "application/json;q=0",
        "application/json; Q=0.0",
        "application/json;q=0.0000",
        "application/json;q=.0",
        "application/json;version=1;q=0",
        "*/*; q=0.0",
        "application/json;q=0, */*",
        "application/*;q=0, */*;q=1",
        "json",
    ],
)
def test_json_is_not_accepted(accept):
    assert not media.accepts(accept, media.JSON)


@pytest.mark.parametrize(
    ("accept", "is_accepted"), [("text/html", True), ("text/*", True), ("application/json", False)]
)
def test_other_types_are_matched_by_their_own_names(accept, is_accepted):
    assert media.accepts(accept, "text/html") is is_accepted


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON ; Charset=UTF-8",
        'application/json;charset="utf8"',
        "application/json; profile=x; charset=utf-8",
        "application/merge-patch+json",
        "application/vnd.example.v2+json",
    ],
)
def test_json_content_types(content_type):
    assert media.is_json(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "json",
        "text/json",
        "text/plain",
        "application/json-seq",
        "application/x+jsonp",
        "application/+json",
        "multipart/form-data",
        "application/json; charset=latin-1",
        "application/json; profile=x; charset=utf-16",
        "application/json, text/plain",
    ],
)
def test_other_content_types_are_not_json(content_type):
    assert not media.is_json(content_type)
