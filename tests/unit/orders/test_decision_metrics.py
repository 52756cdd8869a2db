"""Which events count as decisions, and for which of them the duration is measured."""

import time
from uuid import UUID, uuid4

import pytest

from contracts.ids import new_id
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderShipped
from extensions.observability.metrics import Metrics
from orders.decision_metrics import DecisionMetrics

TWO_SECONDS = 2.0


@pytest.fixture
def decisions():
    metrics = Metrics()
    decisions = DecisionMetrics(metrics)
    decisions.value = metrics.registry.get_sample_value
    return decisions


def counted(decisions, decision, reason=""):
    return decisions.value("suite_orders_decided_total", {"decision": decision, "reason": reason})


def timed(decisions, decision):
    """The number of timed decisions, and the sum of their durations."""
    return tuple(
        decisions.value(f"suite_order_decision_seconds_{part}", {"decision": decision}) for part in ("count", "sum")
    )


def made(seconds_ago):
    """An id of that time. Ids generated in quick succession have timestamps in the future."""
    return UUID(int=int((time.time() - seconds_ago) * 1000) << 80 | 7 << 76 | 2 << 62)


def test_a_confirmation_counts_with_the_time_since_the_order_was_placed(decisions):
    decisions.count(OrderConfirmed(order_id=made(TWO_SECONDS), user_id=new_id(), total_amount="1.00", currency="TRY"))
    assert counted(decisions, "confirmed") == 1
    number, seconds = timed(decisions, "confirmed")
    assert number == 1
    assert TWO_SECONDS - 0.01 <= seconds < TWO_SECONDS + 1


@pytest.mark.parametrize("reason", CancelReason)
def test_a_cancellation_counts_by_reason_and_has_no_duration_if_a_user_requested_it(decisions, reason):
    decisions.count(OrderCancelled(order_id=made(TWO_SECONDS), user_id=new_id(), reason=reason))
    assert {one: counted(decisions, "cancelled", one) for one in CancelReason} == {
        one: float(one is reason) for one in CancelReason
    }
    assert timed(decisions, "cancelled")[0] == (reason not in {"USER", "ADMIN"})


def test_other_events_do_not_count(decisions):
    decisions.count(OrderShipped(order_id=new_id(), user_id=new_id()))
    assert counted(decisions, "confirmed") == 0
    assert timed(decisions, "confirmed") == (0, 0)


def test_ids_without_a_timestamp_or_from_the_future_are_accepted(decisions):
    for order_id in (uuid4(), made(-86_400)):
        decisions.count(OrderConfirmed(order_id=order_id, user_id=new_id(), total_amount="1.00", currency="TRY"))
    assert counted(decisions, "confirmed") == 2
    assert timed(decisions, "confirmed") == (1, 0)
