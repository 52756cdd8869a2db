"""The calls that wait for a slot: in arrival order, and not longer than their callers."""

import eventlet

from contracts.errors import ServiceUnavailable
from extensions.rpc.call_slots import CallSlots
from tests.support import eventually


class Workers:
    """Workers that run until they are told to end."""

    def __init__(self):
        self.started, self.gave_up, self.greenlets = [], [], {}

    def run(self, slots, name, seconds=None):
        slots.run(lambda: self.spawn(name), self.greenlets, seconds, lambda: self.gave_up.append(name))

    def spawn(self, name):
        self.started.append(name)
        end = eventlet.Event()
        self.greenlets[name] = eventlet.spawn(end.wait)
        self.greenlets[name].end = end
        return name

    def end(self, name):
        self.greenlets[name].end.send()
        self.greenlets[name].wait()
        eventlet.sleep(0)


def test_calls_beyond_the_slots_wait_in_arrival_order():
    slots, workers = CallSlots(1), Workers()
    for name in "abc":
        workers.run(slots, name, seconds=60.0)
    assert workers.started == ["a"]
    workers.end("a")
    eventually(lambda: workers.started == ["a", "b"])
    workers.end("b")
    eventually(lambda: workers.started == ["a", "b", "c"])
    assert workers.gave_up == []


def test_a_call_whose_caller_has_given_up_is_not_started():
    slots, workers = CallSlots(1), Workers()
    workers.run(slots, "hangs")
    workers.run(slots, "late", seconds=0.05)
    workers.run(slots, "patient")
    eventually(lambda: workers.gave_up == ["late"])
    workers.end("hangs")
    eventually(lambda: workers.started == ["hangs", "patient"])


def test_a_call_that_was_started_does_not_give_up():
    slots, workers = CallSlots(1), Workers()
    workers.run(slots, "first")
    workers.run(slots, "second", seconds=0.1)
    workers.end("first")
    eventually(lambda: workers.started == ["first", "second"])
    eventlet.sleep(0.2)
    assert workers.gave_up == []


def test_a_waiting_call_for_which_no_worker_is_free_is_given_up_and_delays_no_other():
    slots, workers = CallSlots(1), Workers()

    def refuse():
        raise ServiceUnavailable

    workers.run(slots, "a")
    slots.run(refuse, workers.greenlets, 60.0, lambda: workers.gave_up.append("b"))
    workers.run(slots, "c", seconds=60.0)
    workers.end("a")
    eventually(lambda: workers.started == ["a", "c"])
    assert workers.gave_up == ["b"]
