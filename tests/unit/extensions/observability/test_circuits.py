"""The circuit breakers of a process, as operators see them."""

from extensions.observability.circuits import Circuits
from extensions.observability.instruments import GuardInstruments, WorkItemInstruments
from extensions.observability.metrics import Metrics
from extensions.runtime.circuit_breaker import State


def test_all_circuit_breakers_of_a_process_are_read_with_their_present_state():
    metrics, states = Metrics(), {"orders": State.CLOSED, "payments": State.HALF_OPEN}
    assert Circuits(metrics).all() == []
    GuardInstruments(metrics, "orders").watch(lambda _: 0, lambda: states["orders"])
    GuardInstruments(metrics, "payments").watch(lambda _: 0, lambda: states["payments"])
    WorkItemInstruments(metrics, ["authorize"], lambda _: states["orders"] is State.OPEN)
    shown = [(one.name, one.state) for one in Circuits(metrics).all()]
    assert shown == [("orders", "closed"), ("payments", "half_open"), ("authorize", "closed")]
    states["orders"] = State.OPEN
    assert [one.state for one in Circuits(metrics).all()] == ["open", "half_open", "open"]
