"""Calls outside of the suite (the payment provider), which durable work items make, and the tests that fail without."""

from qa.remedies.remedy import Patch, Remedy

TITLES = {
    "W1": "a call hangs or takes long, or another session locks a row: other payments wait",
    "W2": "a process dies or is suspended between a call and its record: the result is lost, or ends the next call",
}

CALLS = "tests/service/payments/test_provider_calls.py"
ITEMS = "tests/service/payments/test_work_items.py"

REMEDIES = [
    Remedy(
        "W1",
        "a claim skips locked items",
        [
            Patch(
                "extensions/storage/work_items.py", "LIMIT :{limit} FOR UPDATE SKIP LOCKED", "LIMIT :{limit} FOR UPDATE"
            )
        ],
        f"{ITEMS}::test_a_claim_passes_over_items_that_another_transaction_has_locked",
    ),
    Remedy(
        "W1",
        "results of locked payments are recorded later",
        [Patch("payments/queries.py", "set(payment_ids))), skip_locked=True)", "set(payment_ids))))")],
        f"{CALLS}::TestOnePaymentDelaysNoOther::test_a_locked_row",
    ),
    Remedy(
        "W1",
        "calls are made outside of transactions",
        [
            Patch(
                "extensions/storage/work_items_runner.py",
                "                outcomes = handler.execute(request)\n",
                "                def ask(work, own):\n"
                "                    work.session.scalars(work_items.select(1))\n"
                "                    return own.execute(request)\n\n"
                "                outcomes = runner.in_transaction(ask)\n",
            )
        ],
        f"{ITEMS}::test_a_call_that_takes_long_holds_no_transaction",
    ),
    Remedy(
        "W1",
        "a call ends at its deadline",
        [
            Patch(
                "extensions/storage/work_items_runner.py",
                "            with eventlet.Timeout(self.limits.deadline):\n",
                "            with eventlet.Timeout(None):\n",
            )
        ],
        f"{CALLS}::TestOnePaymentDelaysNoOther::test_payments_that_hang",
    ),
    Remedy(
        "W1",
        "a call that has become slow gives its place to another one",
        [
            Patch(
                "extensions/storage/work_items_runner.py",
                "slow = 0 if prompt is None else sum(now - each.began > prompt for each in executing)",
                "slow = 0",
            )
        ],
        f"{CALLS}::TestOnePaymentDelaysNoOther::test_payments_that_take_long",
    ),
    Remedy(
        "W2",
        "an item is claimed again when its lease has ended",
        [
            Patch(
                "extensions/storage/work_items.py",
                "    WHERE kind = :kind AND state = 'WAITING' AND attempts {which}\n",
                "    WHERE kind = :kind AND state = 'WAITING' AND attempts {which} AND lease IS NULL\n",
            )
        ],
        f"{CALLS}::TestLeases::test_another_process_takes_over_after_a_crash_between_outcome_and_record",
    ),
    Remedy(
        "W2",
        "a result is recorded only under the lease of its call",
        [
            Patch(
                "extensions/storage/work_items.py",
                "      ON work_items.key = held.key AND work_items.lease = held.lease\n",
                "      ON work_items.key = held.key\n",
            )
        ],
        f"{ITEMS}::test_the_result_of_a_lost_lease_does_not_end_the_next_call",
    ),
]
