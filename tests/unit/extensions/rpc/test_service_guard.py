"""The bulkhead and the circuit breaker of a called service, without a broker."""

from contextlib import suppress

import eventlet
import pytest

from contracts.errors import Overloaded, ServiceUnavailable, UpstreamTimeout
from contracts.orders import OrderNotFound, OrdersRpc
from contracts.payments import PaymentsRpc
from extensions.observability.instruments import GuardInstruments
from extensions.observability.metrics import Metrics
from extensions.rpc import service_guard as module
from extensions.rpc.service_guard import NoReply, ServiceBusy, ServiceGuard, ServiceGuards, ServiceSilent, Workers
from extensions.runtime.circuit_breaker import MIN_FAILURES, State


@pytest.fixture
def guard(monkeypatch):
    """Two calls run, four run or wait, and a call without a reply is telling however short it was."""
    monkeypatch.setattr(module, "TELLING_SECONDS", 0.0)
    return ServiceGuard("orders", 2, 4, GuardInstruments(Metrics(), "orders"), Workers(100))


def end(guard, error=None, method="get_order"):
    """Make a call that ends with `error`."""
    with suppress(*([type(error)] if error is not None else [])), guard.call(method, 1.0):
        if error is not None:
            raise error


def silence(guard):
    for _ in range(MIN_FAILURES):
        end(guard, NoReply())
    assert guard._breaker.state is State.OPEN


def hang(guard, count):
    """Start calls that end when the returned greenlets are killed."""

    def one():
        with guard.call("get_order", 60.0):
            eventlet.sleep(60)

    hanging = [eventlet.spawn(one) for _ in range(count)]
    eventlet.sleep(0)
    return hanging


def test_calls_wait_for_their_turn_and_beyond_the_bound_they_are_refused_at_once(guard):
    hanging = hang(guard, 4)
    assert guard._bulkhead.in_flight == 4
    with pytest.raises(ServiceBusy, match="Nothing was done") as refusal, guard.call("get_order", 60.0):
        pytest.fail("it was made")
    assert (refusal.value.status, refusal.value.retry_after) == (503, 1)
    with pytest.raises(ServiceBusy):
        guard.require_capacity(60.0)
    for one in hanging:
        one.kill()
    assert guard._bulkhead.in_flight == 0
    end(guard)


def test_after_calls_without_a_reply_further_ones_are_refused_at_once(guard):
    silence(guard)
    with pytest.raises(ServiceSilent, match="Nothing was done") as refusal, guard.call("get_order", 60.0):
        pytest.fail("it was made")
    assert refusal.value.status == 503
    assert refusal.value.retry_after >= 1
    with pytest.raises(ServiceSilent):
        guard.require_capacity(60.0)


def test_calls_that_wait_for_their_turn_are_refused_when_the_circuit_opens(guard):
    hanging = hang(guard, 2)
    waiting = eventlet.spawn(end, guard)
    eventlet.sleep(0)
    for _ in range(MIN_FAILURES):
        guard._breaker.record(failed=True, is_probe=False)
    hanging[0].kill()
    with pytest.raises(ServiceSilent):
        waiting.wait()
    hanging[1].kill()
    assert guard._bulkhead.in_flight == 0


@pytest.mark.parametrize(
    "reply",
    [None, OrderNotFound(), UpstreamTimeout(), Overloaded(), ValueError("a defect of ours"), ServiceUnavailable()],
)
def test_only_silence_opens_the_circuit(guard, reply):
    """The service may have replied with an UpstreamTimeout: then another one was silent, to it."""
    for _ in range(2 * MIN_FAILURES):
        end(guard, reply)
    assert guard._breaker.state is State.CLOSED


def test_a_call_with_little_time_does_not_open_the_circuit(guard, monkeypatch):
    monkeypatch.setattr(module, "TELLING_SECONDS", 1.0)
    for _ in range(2 * MIN_FAILURES):
        end(guard, NoReply())
    assert guard._breaker.state is State.CLOSED


@pytest.mark.parametrize(
    ("reply", "state"), [(None, State.CLOSED), (Overloaded(), State.CLOSED), (NoReply(), State.OPEN)]
)
def test_a_probe_decides(guard, reply, state):
    silence(guard)
    guard._breaker.probe_soon()
    end(guard, reply)
    assert guard._breaker.state is state


def test_a_killed_probe_does_not_leave_the_circuit_half_open(guard):
    silence(guard)
    guard._breaker.probe_soon()
    (probe,) = hang(guard, 1)
    assert guard._breaker.state is State.HALF_OPEN
    probe.kill()
    assert guard._breaker.state is State.OPEN


def test_health_checks_always_pass_and_bring_the_probe_forward(guard):
    silence(guard)
    end(guard, NoReply(), "health")
    with pytest.raises(ServiceSilent):
        guard.require_capacity(1.0)
    end(guard, None, "health")
    guard.require_capacity(1.0)
    end(guard)
    assert guard._breaker.state is State.CLOSED


def test_services_that_are_slow_at_the_same_time_leave_workers_to_the_others(monkeypatch):
    """Each of two guards may have 300 calls of 400 workers: those that place orders, and those that read them."""
    monkeypatch.setattr(module, "RESERVED", 2)
    workers = Workers(20)
    names = ("orders.create_order", "orders", "catalog")
    placing, reading, catalog = (
        ServiceGuard(name, 4, 15, GuardInstruments(Metrics(), name), workers) for name in names
    )
    hanging = hang(placing, 12) + hang(reading, 2)
    for guard in (placing, reading):
        with pytest.raises(ServiceBusy):
            guard.require_capacity(60.0)
        with pytest.raises(ServiceBusy), guard.call("get_order", 60.0):
            pytest.fail("it was made")
    for _ in range(2):
        catalog.require_capacity(60.0)
        hanging += hang(catalog, 1)
    assert catalog._bulkhead.in_flight == 2
    for one in hanging:
        one.kill()
    end(placing)


def test_a_costly_call_is_made_once_at_a_time_and_delays_no_other_call():
    guards, running = ServiceGuards(), []
    guards.metrics = Metrics()

    def export():
        with guards.of_call("orders", "export_orders").call("export_orders", 60.0):
            running.append(True)
            eventlet.sleep(60)

    hanging = [eventlet.spawn(export) for _ in range(10)]
    eventlet.sleep(0)
    assert len(running) == 1
    end(guards.of_call("orders", "get_order"))
    hanging[0].kill()
    eventlet.sleep(0)
    assert len(running) == 2, "the next one had its turn"
    for one in hanging:
        one.kill()


@pytest.mark.parametrize("name", sorted(module.COSTLY_CALLS | module.WAITING_CALLS))
def test_calls_with_a_guard_of_their_own_exist(name):
    service, _, method = name.partition(".")
    assert callable(getattr({"orders": OrdersRpc, "payments": PaymentsRpc}[service], method))
