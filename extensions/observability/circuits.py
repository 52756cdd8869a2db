"""The states of the circuit breakers of this process, for operators: read from the gauges that each registers."""

from collections.abc import Sequence
from typing import Any

from nameko.extensions import DependencyProvider

from contracts.operations import CircuitView
from extensions.observability.instruments import CIRCUIT_STATES
from extensions.observability.metrics import Metrics
from extensions.runtime.circuit_breaker import State


class Circuits:
    """The circuit breakers of a process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def all(self) -> Sequence[CircuitView]:
        """Return those in front of called services, then those in front of outside parties."""
        called = self._metrics.values("rpc_circuit_state")
        outside = self._metrics.values("work_breaker_open")
        return [
            *(CircuitView(name=labels["service"], state=CIRCUIT_STATES[int(value)].value) for labels, value in called),
            *(CircuitView(name=labels["kind"], state=_state_of(value).value) for labels, value in outside),
        ]


def _state_of(is_open: float) -> State:
    return State.OPEN if is_open else State.CLOSED


class CircuitsProvider(DependencyProvider):
    """Gives a service its circuit breakers: `circuits: Circuits = CircuitsProvider()`."""

    metrics = Metrics()

    def get_dependency(self, worker_ctx: Any) -> Circuits:
        """Return them; all workers share them."""
        return Circuits(self.metrics)
