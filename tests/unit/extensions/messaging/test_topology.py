"""The topology that a service declares before it publishes: the queues of all consumers."""

from collections import Counter
from unittest.mock import Mock

import pytest

from contracts.events import EVENTS, EXCHANGE, queue_name
from extensions.messaging import topology

CONSUMERS = [(event, service) for event in EVENTS.values() for service in event.consumers]
SERVICES = {service for _, service in CONSUMERS}


class Channel:
    """Records what is declared. Like the broker, it refuses to bind an undeclared queue or exchange."""

    def __init__(self):
        self.exchanges, self.queues, self.bindings = {}, {}, set()

    def exchange_declare(self, name, kind, *, durable, auto_delete):
        assert (durable, auto_delete) == (True, False)
        assert self.exchanges.setdefault(name, kind) == kind

    def queue_declare(self, name, *, durable, auto_delete, arguments):
        assert (durable, auto_delete) == (True, False)
        assert self.queues.setdefault(name, arguments) == arguments

    def queue_bind(self, queue, exchange, routing_key):
        assert queue in self.queues
        assert exchange in self.exchanges
        self.bindings.add((queue, exchange, routing_key))


@pytest.fixture
def channel(monkeypatch):
    monkeypatch.setattr(topology, "config", {"RETRY_DELAYS_MS": [50, "100"]})
    channel = Channel()
    topology.declare(channel)
    return channel


@pytest.mark.parametrize(("event", "service"), CONSUMERS, ids=lambda value: getattr(value, "__name__", value))
def test_every_consumer_has_its_queue_for_every_event(channel, event, service):
    queue = queue_name(service, event)
    assert (queue, EXCHANGE, event.event_type) in channel.bindings
    assert channel.exchanges[EXCHANGE] == "topic"
    arguments = channel.queues[queue]
    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-delivery-limit"] == 20
    # The broker dead-letters to the queue of the same service.
    assert (arguments["x-dead-letter-exchange"], arguments["x-dead-letter-routing-key"]) == ("dead-letters", service)


def test_only_consumers_have_queues_for_events(channel):
    bound = Counter(queue for queue, exchange, _ in channel.bindings if exchange == EXCHANGE)
    assert bound == Counter(queue_name(service, event) for event, service in CONSUMERS)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_consumer_has_its_dead_letter_queue(channel, service):
    queue = topology.dead_letter_queue(service)
    assert (queue, topology.DEAD_LETTERS, service) in channel.bindings
    # No message expires before it is in the service's table.
    assert channel.queues[queue] == {"x-queue-type": "quorum"}


def test_a_retry_returns_to_its_queue_after_its_delay(channel):
    for delay in (50, 100):
        name = f"again.{delay}ms"
        assert channel.exchanges[name] == "topic"
        assert (name, name, "#") in channel.bindings
        assert channel.queues[name]["x-message-ttl"] == delay
        # Messages keep their routing key, which is the name of the handler's queue.
        assert channel.queues[name]["x-dead-letter-exchange"] == topology.AGAIN
        assert "x-dead-letter-routing-key" not in channel.queues[name]
    for event, service in CONSUMERS:
        assert (queue_name(service, event), topology.AGAIN, queue_name(service, event)) in channel.bindings


def test_the_event_log_is_bounded_and_sees_only_what_is_logged(channel):
    bounds = channel.queues[topology.EVENT_LOG]
    assert (bounds["x-queue-type"], bounds["x-max-age"]) == ("stream", "7D")
    assert bounds["x-stream-max-segment-size-bytes"] * 4 < bounds["x-max-length-bytes"] < 2**30
    # Bound to `events`, it would hide from the broker that a consumer has no queue: see decision 0020.
    assert {exchange for queue, exchange, _ in channel.bindings if queue == topology.EVENT_LOG} == {"logged-events"}


def test_no_queue_drops_messages(channel):
    for name, arguments in channel.queues.items():
        if name == topology.EVENT_LOG:
            continue
        assert not {"x-max-length", "x-max-length-bytes", "x-expires"} & set(arguments)
        if "x-dead-letter-exchange" in arguments:
            assert arguments["x-dead-letter-strategy"] == "at-least-once"
            assert arguments["x-overflow"] == "reject-publish"


def test_declaring_is_idempotent(channel):
    before = (dict(channel.exchanges), dict(channel.queues), set(channel.bindings))
    topology.declare(channel)
    assert (channel.exchanges, channel.queues, channel.bindings) == before


def test_a_consumer_missing_from_the_contracts_declares_its_own_queue():
    event, channel = EVENTS["product.updated"], Mock()
    topology.declare_event_queue(channel, "search", event)
    assert channel.queue_declare.call_args.args == ("search.on_product_updated",)
    channel.queue_bind.assert_any_call("search.on_product_updated", EXCHANGE, "product.updated")
    channel.queue_bind.assert_any_call("search.on_product_updated", topology.AGAIN, "search.on_product_updated")
