"""What customers get from the suite (webhooks, mails, streams, refunds, the deletion of their data), and its tests."""

from qa.remedies.remedy import Patch, Remedy

TITLES = {
    "C1": "a customer cannot recognise a webhook: as a repetition, or as ours",
    "C2": "an endpoint is slow, dead, gone or locked",
    "C3": "a webhook is sent to an address inside of the network",
    "C4": "a mail is sent again and again",
    "C5": "a stream misses or repeats events, or its client does not read",
    "C6": "more is refunded than was captured",
    "C7": "data of a person stays after the deletion of the account",
}

WEBHOOKS = "tests/service/notifications/test_webhooks.py"
MAILS = "tests/service/notifications/test_mails.py"
OUTBOUND = "tests/unit/extensions/outbound"
REFUNDS = "tests/service/payments/test_refunds.py"

REMEDIES = [
    Remedy(
        "C1",
        "every attempt has the id of the event",
        [Patch("notifications/deliveries.py", "headers(str(due.event_id), int", "headers(str(new_id()), int")],
        f"{WEBHOOKS}::TestSigning::test_retries_have_the_same_id_and_a_new_timestamp",
    ),
    Remedy(
        "C1",
        "after a rotation, both secrets sign for a day",
        [
            Patch(
                "notifications/queries.py",
                'tuple(secret for secret in (row["secret"], row["old_secret"]) if secret)',
                '(row["secret"],)',
            )
        ],
        f"{WEBHOOKS}::TestSigning::test_during_a_rotation_both_secrets_verify",
    ),
    Remedy(
        "C2",
        "endpoints that failed have places of their own",
        [Patch("notifications/deliveries.py", "        return FAILING\n", "        return WORKING\n")],
        f"{WEBHOOKS}::TestIsolation::test_a_dead_endpoint_with_many_deliveries_delays_no_other",
    ),
    Remedy(
        "C2",
        "endpoints that are slow, or new, have places of their own",
        [Patch("notifications/deliveries.py", 'return SLOW if webhook["is_slow"] else WORKING', "return WORKING")],
        f"{WEBHOOKS}::TestIsolation::test_slow_endpoints_delay_no_other",
    ),
    Remedy(
        "C2",
        "results of locked endpoints are recorded later",
        [Patch("notifications/queries.py", '{_ENDPOINTS} FOR UPDATE SKIP LOCKED"', '{_ENDPOINTS} FOR UPDATE"')],
        f"{WEBHOOKS}::TestIsolation::test_a_locked_endpoint_delays_only_itself",
    ),
    Remedy(
        "C2",
        "410 disables the endpoint",
        [
            Patch(
                "notifications/deliveries.py",
                "    if any(one.status == rules.GONE for one in attempts):",
                "    if False:",
            )
        ],
        f"{WEBHOOKS}::TestFailures::test_gone_disables_at_once_and_tells_the_owner",
    ),
    Remedy(
        "C2",
        "a redirect is a failure",
        [Patch("notifications/rules.py", "200 <= self.status < 300\n", "200 <= self.status < 400\n")],
        f"{WEBHOOKS}::TestFailures::test_everything_but_2xx_is_repeated[307]",
    ),
    Remedy(
        "C2",
        "a first attempt is due at once, also after the clock was set back",
        [Patch("notifications/queries.py", "(attempts = 0 OR next_attempt_at <= s", "(next_attempt_at <= s")],
        f"{WEBHOOKS}::TestFailures::test_a_clock_that_was_set_back_delays_no_first_attempt",
    ),
    Remedy(
        "C3",
        "the addresses are checked at every request, and not only at the registration",
        [
            Patch(
                "extensions/outbound/client.py",
                "            check_address(address, allow_loopback=self._allow_loopback)\n",
                "            pass\n",
            )
        ],
        f"{OUTBOUND}/test_client.py::test_each_request_resolves_anew_and_connects_to_what_was_checked",
    ),
    Remedy(
        "C3",
        "the connection goes to the address that was checked, and not to the name",
        [
            Patch(
                "extensions/outbound/client.py",
                "connect((str(address), target.port))",
                "connect((target.host, target.port))",
            )
        ],
        f"{OUTBOUND}/test_client.py::test_the_addresses_are_resolved_once_for_check_and_connection",
    ),
    Remedy(
        "C3",
        "addresses that contain a private one are in the table, because `ipaddress` calls them global",
        [Patch("extensions/outbound/addresses.py", '    "2002::/16": "6to4",\n')],
        f"{OUTBOUND}/test_targets.py::test_an_address_that_is_not_public_is_refused[2002:7f00:1::]",
    ),
    Remedy(
        "C4",
        "the id of a mail is derived from what it is about",
        [Patch("notifications/mails.py", '"id": uuid5(about, kind)', '"id": uuid5(about, str(id(fields)))')],
        f"{MAILS}::test_the_same_fact_is_mailed_once",
    ),
    Remedy(
        "C4",
        "a mail of which two attempts may have arrived is given up",
        [Patch("notifications/mails.py", "MAX_UNSETTLED = 2\n", "MAX_UNSETTLED = 1000\n")],
        f"{MAILS}::test_a_mail_of_which_the_end_is_unknown_is_sent_twice_at_most",
    ),
    Remedy(
        "C5",
        "a client that comes back gets what comes after its last event",
        [
            Patch(
                "gateway/live/provider.py",
                "            stream.position = seen\n            stream.needs_admin",
                "            stream.position = 0\n            stream.needs_admin",
            )
        ],
        "tests/service/gateway/test_streams.py::test_a_stream_continues_after_the_last_event",
    ),
    Remedy(
        "C5",
        "a notification is sent when no earlier one can be committed any more",
        [
            Patch(
                "notifications/stream_queries.py",
                "(known.xact, known.id) AND xact < {_HORIZON}",
                "(known.xact, known.id)",
            )
        ],
        "tests/service/notifications/test_stream_queries.py::test_what_is_committed_late_is_not_passed_over",
    ),
    Remedy(
        "C5",
        "a client that is 256 KiB behind is dropped (without it: 4 MiB)",
        [
            Patch(
                "extensions/http/streams/stream.py",
                "limit = BUFFER_BYTES if self._sock",
                "limit = 16 * BUFFER_BYTES if self._sock",
            )
        ],
        "tests/unit/extensions/http/streams/test_stream.py"
        "::test_a_client_that_does_not_read_is_dropped_with_bounded_memory",
    ),
    Remedy(
        "C6",
        "the payment is locked while its refunds are compared with what was captured",
        [
            Patch(
                "payments/queries.py",
                "    found = _locked(session, select(Payment).where(Payment.id == payment_id))\n",
                "    found = session.scalars(select(Payment).where(Payment.id == payment_id)).all()\n",
            )
        ],
        f"{REFUNDS}::TestRaces::test_concurrent_refunds_are_never_more_than_what_was_captured",
    ),
    Remedy(
        "C6",
        "a CHECK constraint",
        [
            Patch(
                "payments/migrations/0007_refunds.py",
                '    op.create_check_constraint("refunds_within_amount", "payments", WITHIN)\n',
            )
        ],
        f"{REFUNDS}::test_the_database_refuses_refunds_above_what_was_captured",
        own_servers=True,
    ),
    Remedy(
        "C6",
        "a repeated call of the provider has the same key",
        [Patch("payments/queries.py", "key=refund.provider_key, amount", "key=f'{refund.id}:{id(call)}', amount")],
        f"{REFUNDS}::TestAttempts::test_a_lost_response_does_not_refund_twice",
    ),
    Remedy(
        "C7",
        "the texts of notifications are removed",
        [Patch("notifications/recipients.py", 'values(subject="", body="", in_app=False)', "values(in_app=False)")],
        f"{WEBHOOKS}::TestOwners::test_a_deleted_account_leaves_nothing",
    ),
    Remedy(
        "C7",
        "a deletion is final: a registration that arrives later brings nothing back",
        [Patch("notifications/recipients.py", '    WHERE recipients.deleted_at IS NULL\n    """', '    """')],
        f"{WEBHOOKS}::TestOwners::test_a_deleted_account_leaves_nothing",
    ),
    Remedy(
        "C7",
        "the addresses are removed from the orders",
        [
            Patch(
                "orders/account_deletions.py",
                "    changed = personal_data.remove(session, user_ids, BATCH)\n",
                "    changed = {}\n",
            )
        ],
        "tests/service/orders/test_account_deletions.py::test_addresses_are_removed_from_all_orders_of_the_user",
    ),
]
