import time

import pytest

from contracts.errors import Overloaded
from extensions.http.limits.bulkhead import Bulkhead
from extensions.http.limits.circuit_breaker import CircuitBreaker


def test_the_circuit_stays_open_for_the_retry_after_of_the_service():
    circuit_breaker = CircuitBreaker()
    circuit_breaker.check()
    circuit_breaker.open(Overloaded("Too many orders.", retry_after=1))
    with pytest.raises(Overloaded, match="Too many orders") as refusal:
        circuit_breaker.check()
    assert refusal.value.retry_after == 1
    circuit_breaker._open_until = time.monotonic()
    circuit_breaker.check()


def test_soon_after_an_overload_requests_get_a_free_worker_but_are_not_queued():
    circuit_breaker, bulkhead = CircuitBreaker(), Bulkhead(workers=1, max_requests=1000)
    bulkhead.record_duration(0.1)
    assert circuit_breaker.queue_timeout(5.0) == 5.0
    circuit_breaker.open(Overloaded("Too many orders.", retry_after=1))
    circuit_breaker._open_until = time.monotonic()
    bulkhead.acquire(circuit_breaker.queue_timeout(5.0))
    with pytest.raises(Overloaded):
        bulkhead.acquire(circuit_breaker.queue_timeout(5.0))
    circuit_breaker._no_queue_until = time.monotonic()
    assert circuit_breaker.queue_timeout(5.0) == 5.0
