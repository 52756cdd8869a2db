"""What a stop of a service waits for in its connections, and for how long."""

from types import SimpleNamespace

import eventlet
import pytest

from extensions.messaging import listener, outbox_relay
from extensions.messaging.listener import Listener
from extensions.messaging.outbox_relay import OutboxRelay


@pytest.fixture
def impatient():
    """Fails a test that waits for ever."""
    with eventlet.Timeout(30):
        yield


@pytest.mark.usefixtures("impatient")
def test_the_end_of_a_consumer_is_awaited_for_a_limited_time(monkeypatch):
    monkeypatch.setattr(listener, "CANCEL_TIMEOUT_SECONDS", 0.05)
    cancelled = []
    channel = SimpleNamespace(callbacks={"tag": print}, send_method=lambda *method: cancelled.append(method))
    one, subscription = Listener(), object()
    one._consumers[subscription] = (channel, "tag")
    one.unsubscribe(subscription)  # the broker does not confirm it
    assert len(cancelled) == 1
    assert not one.is_consuming(subscription)


@pytest.mark.usefixtures("impatient")
def test_the_relay_is_awaited_for_a_limited_time(monkeypatch):
    monkeypatch.setattr(outbox_relay, "STOP_SECONDS", 0.05)
    relay = OutboxRelay()
    relay._relay = eventlet.spawn(eventlet.Event().wait)  # it hangs in a batch
    relay._watch = eventlet.spawn(eventlet.Event().wait)
    relay.stop()
    assert relay._relay.dead
    assert relay._watch.dead
