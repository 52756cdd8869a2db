import time

import pytest

from contracts.errors import Overloaded
from extensions.http.limits.overload_pause import OverloadPause
from extensions.http.message.errors import gateway_overloaded
from extensions.runtime.bulkhead import Bulkhead


def test_the_pause_lasts_for_the_retry_after_of_the_service():
    pause = OverloadPause()
    pause.check()
    pause.begin(Overloaded("Too many orders.", retry_after=1))
    with pytest.raises(Overloaded, match="Too many orders") as refusal:
        pause.check()
    assert refusal.value.retry_after == 1
    pause._until = time.monotonic()
    pause.check()


def test_soon_after_an_overload_requests_get_a_free_worker_but_are_not_queued():
    pause, bulkhead = OverloadPause(), Bulkhead(1, 1000, gateway_overloaded)
    bulkhead.record_duration(0.1)
    assert pause.queue_timeout(5.0) == 5.0
    pause.begin(Overloaded("Too many orders.", retry_after=1))
    pause._until = time.monotonic()
    bulkhead.acquire(pause.queue_timeout(5.0))
    with pytest.raises(Overloaded):
        bulkhead.acquire(pause.queue_timeout(5.0))
    pause._no_queue_until = time.monotonic()
    assert pause.queue_timeout(5.0) == 5.0
