"""A service that handles an event of which it is no consumer: its queue does not exist, and nothing creates it."""

import pytest
from nameko.containers import get_container_cls
from nameko.exceptions import ConfigurationError

from contracts.orders import OrderShipped
from extensions.messaging import topology
from extensions.messaging.event_handler import handles
from extensions.operations import operations
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from notifications.service import NotificationsService
from qa.support.machine_speed import slowness
from tests.service.conftest import start


class Recorder(operations.Operations):
    """Takes the place of notifications."""

    name = "notifications"
    work = Work(Base)

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        """Do nothing."""


def test_a_service_of_the_registry_does_not_start(run_service, monkeypatch):
    monkeypatch.setattr(OrderShipped, "consumers", ())
    advice = (
        "notifications handles order.shipped: add 'notifications' to the event's `consumers` in contracts/orders.py"
    )
    with pytest.raises(ConfigurationError, match=advice):
        run_service(NotificationsService)


def test_another_service_declares_its_queue(run_service, monkeypatch):
    monkeypatch.setattr(OrderShipped, "consumers", ())
    run_service(Recorder)


def test_a_test_fails_that_starts_a_service_whose_queue_nobody_declares(servers, monkeypatch):
    monkeypatch.setattr(topology, "declare_event_queue", lambda *_: None)
    monkeypatch.setattr(topology, "ensure", lambda *_: None)
    monkeypatch.setattr("extensions.messaging.event_queue.queue_name", lambda *_: "notifications.on_nothing")
    with pytest.raises(
        pytest.fail.Exception, match=r"notifications did not start .* no queue 'notifications.on_nothing"
    ):
        start(get_container_cls()(Recorder), seconds=slowness())
