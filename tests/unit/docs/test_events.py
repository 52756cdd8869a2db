"""docs/architecture/events.md and its schemas agree with the code."""

import pytest

from contracts.events import EVENTS, queue_name
from docs.architecture import generate_events

GENERATED = generate_events.generate()


@pytest.mark.parametrize("name", GENERATED)
def test_the_committed_file_is_up_to_date(name):
    path = generate_events.HERE / name
    assert path.exists(), f"{path} is missing: run `make docs`"
    assert path.read_text() == GENERATED[name], f"{path} is out of date: run `make docs` and commit what changed"


def test_there_is_no_schema_of_a_removed_event():
    found = {path.name for path in (generate_events.HERE / "schemas").iterdir()}
    assert found == {f"{name}.json" for name in EVENTS}


def test_every_consumer_that_a_contract_names_has_its_handler():
    handlers = {consumer.queue for consumers in generate_events.find_consumers().values() for consumer in consumers}
    named = {f"`{queue_name(service, event)}`" for event in EVENTS.values() for service in event.consumers}
    assert named - handlers == set()


def test_every_handler_is_among_the_consumers_of_its_event():
    """The broker creates only the queues of `consumers`, and no service may read any other queue."""
    for name, consumers in generate_events.find_consumers().items():
        expected = {queue_name(service, EVENTS[name]): service for service in EVENTS[name].consumers}
        for queue, service in ((one.queue.strip("`"), one.service) for one in consumers if one.queue.startswith("`")):
            module = EVENTS[name].__module__.replace(".", "/")
            assert queue in expected, f"{service} handles {name}: add it to the event's `consumers` in {module}.py"


def test_events_are_json_objects_that_name_all_their_fields():
    for name in EVENTS:
        assert f"## {name}\n" in GENERATED["events.md"]
        for field in EVENTS[name].model_fields:
            assert f"| `{field}` |" in GENERATED["events.md"].partition(f"## {name}\n")[2].partition("\n## ")[0]
