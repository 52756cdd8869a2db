"""Traces: which headers are continued, which are replaced, and the deadline of a call."""

import json
import logging
import re
import time

import pytest

from extensions.observability.logs import LogFormatter
from extensions.observability.traces import (
    REDIS_WAIT_HEADER,
    RedisWait,
    Trace,
    continue_trace,
    current_trace,
    start_trace,
    trace_of,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WELL_FORMED = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@pytest.mark.parametrize("request_id", ["7", "a.b_c:d/e+f=g@h-i", "x" * 128])
def test_a_well_formed_request_id_is_kept(request_id):
    assert trace_of({"x-request-id": request_id}, "orders").request_id == request_id


@pytest.mark.parametrize(
    "request_id", ["", "x" * 129, "two words", "line\nbreak", "7\n", "<b>", "ş", "\x00", None, {"a": 1}], ids=ascii
)
def test_a_malformed_request_id_is_replaced(request_id):
    found = trace_of({"x-request-id": request_id}, "orders").request_id
    assert re.fullmatch(r"[0-9a-f-]{36}", found)


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_traceparent_keeps_its_trace_id_and_gets_a_new_span_id(flags):
    trace = trace_of({"traceparent": f"00-{TRACE}-{SPAN}-{flags}"}, "orders")
    version, trace_id, span, found = trace.traceparent.split("-")
    assert (version, trace_id, found) == ("00", TRACE, flags)
    assert WELL_FORMED.fullmatch(trace.traceparent)
    assert span != SPAN


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "nonsense",
        f"01-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_a_malformed_traceparent_is_replaced(traceparent):
    found = trace_of({"traceparent": traceparent}, "orders").traceparent
    assert WELL_FORMED.fullmatch(found)
    assert TRACE not in found


def test_new_traces_differ():
    one, other = trace_of({}, "orders"), trace_of({}, "orders")
    assert one.request_id != other.request_id
    assert one.traceparent != other.traceparent


def test_the_headers_of_a_trace_continue_the_same_request():
    trace = trace_of({}, "gateway")
    onward = trace_of(trace.headers, "orders")
    assert onward.request_id == trace.request_id
    assert onward.traceparent[:36] == trace.traceparent[:36]


def test_the_remaining_time_decreases_and_is_never_negative():
    assert Trace().remaining(4.0) == 4.0
    trace = trace_of({}, "orders", budget=10.0)
    assert trace.remaining(4.0) == 4.0
    assert 9.0 < trace.remaining(60.0) <= 10.0
    assert Trace(deadline=time.monotonic() - 1).remaining(4.0) == 0.0
    assert trace_of({}, "orders", budget=0.0).remaining(4.0) == 0.0


def test_a_continued_trace_is_the_same_request_with_its_own_deadline():
    trace = Trace()
    continue_trace(trace, "gateway", 2.0)
    assert current_trace().headers == trace.headers
    assert current_trace().service == "gateway"
    assert 1.9 < current_trace().remaining(10.0) <= 2.0


@pytest.mark.parametrize("created", [0.0, 1.0005, 1.9996, 1_700_000_000.042, 1_700_000_000.987])
def test_the_time_of_a_log_line_has_the_format_of_logging(created):
    record = logging.makeLogRecord({"created": created, "msecs": created % 1 * 1000})
    assert LogFormatter().formatTime(record) == logging.Formatter().formatTime(record)


def test_every_log_line_contains_the_request_id():
    trace = start_trace({"x-request-id": "r-7"}, "orders")
    assert current_trace() is trace
    record = logging.LogRecord("some.module", logging.ERROR, __file__, 1, "%s lost", ("it",), None)
    line = json.loads(LogFormatter("json").format(record))
    assert line["message"] == "it lost"
    assert (line["service"], line["request_id"], line["traceparent"]) == ("orders", "r-7", trace.traceparent)
    assert "orders some.module [r-7] it lost" in LogFormatter().format(record)


def test_a_json_log_line_is_one_line_even_with_a_traceback():
    try:
        raise ValueError("broken\nin two")
    except ValueError as error:
        failure = (type(error), error, error.__traceback__)
    record = logging.LogRecord("m", logging.ERROR, __file__, 1, "two\nlines", (), failure)
    text = LogFormatter("json").format(record)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["exception"]


@pytest.mark.parametrize(
    ("said", "seconds"), [("70", 0.07), ("", 0), ("-1", 0), ("1e3", 0), ("٣", 0), ("9" * 7, 0), (70, 0), (None, 0)]
)
def test_the_wait_for_redis_is_read_from_the_headers_of_a_call(said, seconds):
    assert RedisWait.of({REDIS_WAIT_HEADER: said}).seconds == seconds


def test_only_a_call_is_told_of_the_wait_for_redis():
    trace = Trace(redis_wait=RedisWait(0.0604))
    assert trace.call_headers == trace.headers | {REDIS_WAIT_HEADER: "60"}
    assert Trace(redis_wait=RedisWait(0.0004)).call_headers.keys() == trace.headers.keys()
