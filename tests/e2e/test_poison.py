"""Invalid messages of every kind, sent to every kind of queue of all running services.

No process ends or stops handling other messages, and each invalid message becomes a dead letter.
"""

import sqlalchemy

from contracts.events import EVENTS, EXCHANGE, queue_name
from contracts.services import PROCESSES, SERVICES
from contracts.users import UserUpdated
from extensions.messaging.topology import RPC_EXCHANGE, dead_letter_queue
from tests import poison
from tests.support import connect, database, eventually

CONSUMERS = sorted({service for event in EVENTS.values() for service in event.consumers})


def only_some(messages, service):
    """All services read headers with the same code, so only one of them gets those that take long."""
    return [one for one in messages if service == "orders" or one not in poison.DEEP]


def poison_everything(channel):
    """Publish all invalid messages. Returns the expected number of dead letters of each service."""
    expected = dict.fromkeys(SERVICES, 0)
    for service in SERVICES:
        for one in only_some(poison.INVALID_CALLS, service):
            one.publish(channel, RPC_EXCHANGE, f"{service}.health", reply_to="nowhere")
            expected[service] += 1
    for service in CONSUMERS:
        event = next(event for event in EVENTS.values() if service in event.consumers)
        for queue in (queue_name(service, event), dead_letter_queue(service)):
            for one in only_some(poison.ANYWHERE, service):
                one.publish(channel, "", queue)
                expected[service] += 1
    for one in only_some(poison.ANYWHERE, "gateway"):
        # Also into the gateway's queue. The gateway stores no dead letters.
        one.publish(channel, EXCHANGE, UserUpdated.event_type)
        for service in UserUpdated.consumers:
            expected[service] += 1
    return expected


def dead(service):
    with database(service).connect() as connection:
        return connection.scalar(sqlalchemy.text("SELECT count(*) FROM dead_letters WHERE replayed_at IS NULL"))


def are_dead(expected):
    found = {service: dead(service) for service in SERVICES}
    wrong = {name: (found[name], count) for name, count in expected.items() if found[name] != count}
    assert wrong == {}, "found and expected"
    return True


def discard_all(rpc):
    while letters := rpc.list_dead_letters()["items"]:
        assert all(letter["error"] for letter in letters)
        rpc.discard_dead_letters(ids=[letter["id"] for letter in letters])


def test_no_invalid_message_ends_or_blocks_a_process(shop, caller):
    pen = shop.product(stock=5)
    shop.assert_sound()
    restarts = {service: shop.suite.restart_count(service) for service in PROCESSES}
    with connect() as connection:
        expected = poison_everything(connection.channel())
    try:
        shop.reaches(shop.order((pen, 1)), "CONFIRMED")
        eventually(lambda: are_dead(expected))
        assert {service: shop.suite.restart_count(service) for service in restarts} == restarts
        assert not poison.TRAP.exists()
    finally:
        for service in SERVICES:
            discard_all(getattr(caller, service))
    shop.assert_sound()
    shop.has_stock(pen, 4)
