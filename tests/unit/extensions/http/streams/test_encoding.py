import pytest

from extensions.http.streams.encoding import COMMENT, encode, opening, position_only


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (encode("{}"), b"data: {}\n\n"),
        (encode("{}", event="status", event_id="3"), b"event: status\nid: 3\ndata: {}\n\n"),
        (encode("a\nb\r\nc\rid: 9"), b"data: a\ndata: b\ndata: c\ndata: id: 9\n\n"),
        (encode("Çay"), "data: Çay\n\n".encode()),
        (position_only("7-0"), b"id: 7-0\n\n"),
        (opening(2000), b"retry: 2000\n\n"),
        (COMMENT, b":\n\n"),
    ],
)
def test_the_format(event, expected):
    assert event == expected
