"""Connection errors, outgoing messages, and publisher confirms."""

import itertools

import pytest

from extensions.messaging.connection import BrokerUnavailable, broker_errors
from extensions.messaging.publisher import OutgoingMessage, Part


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
        part = Part()
        part.unconfirmed = {number: str(number) for number in (1, 2, 3, 4)}
        part.settle(tag, multiple)
        settled = set(range(1, tag + 1)) if multiple else {tag}
        assert set(part.unconfirmed) == {1, 2, 3, 4} - settled
        assert part.confirmed == {str(number) for number in settled}
        part.settle(4, True, "refused")
        assert part.unconfirmed == {}
        assert part.refused == dict.fromkeys(map(str, {1, 2, 3, 4} - settled), "refused")


def test_a_late_confirm_of_an_earlier_batch_changes_nothing():
    part = Part()
    part.unconfirmed = {7: "m-7"}
    part.settle(6, False)
    part.settle(5, True)
    assert (part.unconfirmed, part.confirmed) == ({7: "m-7"}, set())
