"""The setting AMQP_WIRE, and what both implementations of a channel have in common: the bytes that they write."""

from contextlib import nullcontext

import pytest
from amqp import spec
from amqp.exceptions import RecoverableConnectionError
from amqp.method_framing import frame_writer
from nameko import config
from nameko.containers import ServiceContainer
from nameko.exceptions import ConfigurationError
from nameko.extensions import DependencyProvider

from extensions.messaging.connection import connect
from extensions.messaging.listener import Listener
from extensions.messaging.wire.connection import WIRES, connection_class
from extensions.messaging.wire.fast import FastChannel, FastConnection
from extensions.messaging.wire.plain import PlainChannel, PlainConnection

CALL = {
    "correlation_id": "c-1",
    "reply_to": "an-address",
    "expiration": "4000",
    "headers": {"x-request-id": "ürgent", "traceparent": "00-1-2-01"},
    "mandatory": True,
}


def test_the_setting_chooses_the_class():
    assert connection_class({}) is connection_class({"AMQP_WIRE": "fast"}) is FastConnection
    assert connection_class({"AMQP_WIRE": "plain"}) is PlainConnection
    assert set(WIRES) == {"fast", "plain"}


@pytest.mark.parametrize("value", ["Plain", "", None, True])
def test_any_other_value_is_an_error_that_names_the_setting(value):
    with pytest.raises(ConfigurationError, match=r"AMQP_WIRE .* fast, plain"):
        connection_class({"AMQP_WIRE": value})


def test_a_service_with_another_value_does_not_start():
    class Service:
        name = "service"
        listener = Receiving()

    container = ServiceContainer(Service)
    with config.patch({"AMQP_WIRE": "quick"}), pytest.raises(ConfigurationError, match="AMQP_WIRE"):
        container.shared_extensions[Listener].setup()


class Receiving(DependencyProvider):
    listener = Listener()


@pytest.mark.parametrize("connection", [FastConnection, PlainConnection])
def test_the_broker_tells_when_it_takes_no_messages(connection):
    told = []
    made = connection(on_blocked=lambda _reason: told.append("blocked"), on_unblocked=lambda: told.append("unblocked"))
    assert made.negotiate_capabilities["connection.blocked"] is True
    for method in (spec.Connection.Blocked, spec.Connection.Unblocked):
        made.dispatch_method(method, b"\x00\x00\x00\x00\x03low", None)
    assert told == ["blocked", "unblocked"]


@pytest.mark.parametrize("wire", WIRES)
def test_publishing_never_reads_from_the_socket(wire, monkeypatch):
    """With the capability `connection.blocked`, py-amqp's basic_publish would take frames from the reader."""
    negotiated = lambda self: self.client_properties.update(capabilities={"connection.blocked": True})  # noqa: E731
    monkeypatch.setattr(connection_class({"AMQP_WIRE": wire}), "connect", negotiated)
    with config.patch({"AMQP_WIRE": wire, "AMQP_URI": "amqp://"}):
        assert connect(heartbeat=0).client_properties["capabilities"] == {}


class Wire:
    """A connection without a socket: it collects what is written."""

    frame_max = 4096
    bytes_sent = 0

    def __init__(self, channel_class):
        self.channels, self.written, self.client_properties = {}, bytearray(), {}
        self.confirm_publish, self.transport = False, self
        self.connected = True
        self._used_channel_ids = []
        self.frame_writer = frame_writer(self, self)
        self.channel = channel_class(self, 3)

    def _claim_channel_id(self, channel_id):
        self._used_channel_ids.append(channel_id)
        return channel_id

    def having_timeout(self, _timeout):
        return nullcontext()

    def write(self, data):
        self.written.extend(bytes(data))


@pytest.mark.parametrize("body", ["{}", '"ğ"', "x" * 10_000], ids=len)
@pytest.mark.parametrize("properties", [{"correlation_id": "c-1"}, {}, CALL], ids=["reply", "bare", "call"])
def test_both_write_the_same_bytes(body, properties):
    written = []
    for channel_class in (FastChannel, PlainChannel):
        wire = Wire(channel_class)
        message = wire.channel.message(body, "rpc", "users.login", **properties)
        wire.channel.send(wire.channel.acknowledgement(2**40), message)
        written.append(bytes(wire.written))
    assert written[0] == written[1]


@pytest.mark.parametrize("channel_class", [FastChannel, PlainChannel])
def test_sending_on_a_closed_channel_is_a_lost_connection(channel_class):
    channel = Wire(channel_class).channel
    acknowledgement = channel.acknowledgement(1)
    channel.connection = None
    with pytest.raises(RecoverableConnectionError, match="closed"):
        channel.send(acknowledgement)
