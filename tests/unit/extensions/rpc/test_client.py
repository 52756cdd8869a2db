"""The client of RPC without a broker: the limit of calls in flight."""

import pytest

from contracts.errors import ServiceUnavailable
from extensions.rpc.client import MAX_PENDING, PendingCalls


def test_one_call_too_many_is_refused_before_anything_is_sent():
    calls = PendingCalls()
    calls._pending = dict.fromkeys(map(str, range(MAX_PENDING)))
    with pytest.raises(ServiceUnavailable) as refusal:
        calls.call("orders", "create_order", (), {}, timeout=1.0)
    assert refusal.value.retry_after == 1
    assert len(calls._pending) == MAX_PENDING
