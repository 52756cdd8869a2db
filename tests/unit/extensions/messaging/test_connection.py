"""Connection errors, outgoing messages, and publisher confirms."""

import itertools

import pytest

from extensions.messaging.connection import BrokerUnavailable, broker_errors
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage


@pytest.mark.parametrize("failure", [OSError, TimeoutError, EOFError, ConnectionResetError])
def test_a_lost_connection_becomes_broker_unavailable(failure):
    with pytest.raises(BrokerUnavailable), broker_errors():
        raise failure
    with pytest.raises(ZeroDivisionError), broker_errors():
        raise ZeroDivisionError


def test_a_message_is_persistent_json_with_its_identity():
    outgoing = OutgoingMessage(
        "events", "order.shipped", "{}", "m-1", event_type="order.shipped", headers={"x-request-id": "r"}
    )
    message = outgoing.to_amqp()
    assert message.properties["delivery_mode"] == 2
    assert message.properties["content_type"] == "application/json"
    assert message.properties["message_id"] == "m-1"
    assert message.properties["type"] == "order.shipped"
    assert message.headers == {"x-request-id": "r"}
    assert not {"app_id", "correlation_id"} & set(message.properties)  # AMQP has no null


def test_a_confirm_is_for_one_message_or_for_all_up_to_it():
    for tag, multiple in itertools.product((2, 3), (False, True)):
        publisher = ConfirmedPublisher()
        publisher._unconfirmed = {1, 2, 3, 4}
        publisher._on_ack(tag, multiple)
        assert publisher._unconfirmed == {1, 2, 3, 4} - (set(range(1, tag + 1)) if multiple else {tag})
        assert publisher._refused == set()
        publisher._on_nack(4, True)
        assert publisher._unconfirmed == set()
        assert 4 in publisher._refused
        assert tag not in publisher._refused
