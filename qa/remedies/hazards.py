"""The hazards H1 to H16 of a saga, their remedies, and the tests that fail without them."""

from qa.remedies.remedy import Patch, Remedy

TITLES = {
    "H1": "`payment.failed` cancels, `stock_reserved` arrives later: the stock stays reserved",
    "H2": "`stock_failed` cancels, `payment.authorized` arrives later: the authorisation stays open",
    "H3": "`order.cancelled` arrives before `order.created`",
    "H4": "both positive replies are handled concurrently, and neither sees the other: the order is never confirmed",
    "H5": "duplicate messages",
    "H6": "a crash between commit and ack",
    "H7": "a crash, or the broker down, between commit and publish",
    "H8": "an event is published before its queue exists",
    "H9": "a handler raises: the event is lost or retried without a pause",
    "H10": "a participant never replies",
    "H11": "the user cancels while the order is being confirmed",
    "H12": "a client states a wrong or outdated price",
    "H13": "orders of [A, B] and [B, A] deadlock",
    "H14": "the last unit is sold twice; an order is reserved partially",
    "H15": "a reader caches an old row after its invalidation",
    "H16": "floats, NaN, and the exact limit of an amount",
}

RACES = "tests/service/test_hazards.py"
ENSURES = "        topology.ensure(connection, self.container.service_name)\n"
INVENTORY = "tests/service/inventory/test_inventory.py"
PAYMENTS = "tests/service/payments/test_payments.py"
ORDERS = "tests/service/orders/test_service.py"
PLACING = "tests/service/orders/test_placing.py"
DELIVERY = "tests/service/extensions/messaging/test_delivery.py"

NO_ORDER_LOCK = Patch(
    "orders/use_cases.py",
    "order_by(Order.id).with_for_update()",
    "order_by(Order.id)",
)
NO_INBOX = Patch(
    "extensions/messaging/event_handler.py",
    "                    if unseen:\n                        method(self, unseen)",
    "                    method(self, events)",
)

REMEDIES = [
    Remedy(
        "H1",
        "inventory releases on `order.cancelled`, whenever it arrives",
        [
            Patch(
                "inventory/rules.py",
                "    (Status.RESERVED, OrderCancelled): Step(Status.RELEASED, reserved=-1, publishes=StockReleased),\n",
            )
        ],
        f"{INVENTORY}::TestAnOrder::test_is_released",
    ),
    Remedy(
        "H1",
        "a release is idempotent per order",
        [
            Patch(
                "inventory/rules.py",
                "    (None, OrderCancelled): Step(Status.CANCELLED_BEFORE),\n",
                "    (None, OrderCancelled): Step(Status.CANCELLED_BEFORE),\n"
                "    (Status.RELEASED, OrderCancelled): Step(Status.RELEASED, reserved=-1, publishes=StockReleased),\n"
                "    (Status.RETURNED, OrderCancelled): Step(Status.RETURNED, on_hand=+1, publishes=StockReleased),\n",
            )
        ],
        f"{INVENTORY}::TestAnOrder::test_counts_once_however_often_its_events_are_delivered",
    ),
    Remedy(
        "H2",
        "payments voids on `order.cancelled`",
        [
            Patch(
                "payments/rules.py",
                "    return STEPS.get((state, trigger))\n",
                "    return STEPS.get((state, trigger)) if state is not State.AUTHORIZED else None\n",
            )
        ],
        f"{PAYMENTS}::TestAnAuthorisedPayment::test_is_voided_and_the_late_confirmation_changes_nothing",
    ),
    Remedy(
        "H2",
        "a cancellation during the provider's call is stored",
        [Patch("payments/rules.py", "    (State.PENDING, OrderCancelled): Step(State.CANCELLING),\n")],
        f"{PAYMENTS}::TestEarlyCancellation::test_before_the_outcome_of_the_provider",
    ),
    Remedy(
        "H3",
        "a tombstone in inventory: a late `order.created` reserves nothing",
        [Patch("inventory/rules.py", "    (None, OrderCancelled): Step(Status.CANCELLED_BEFORE),\n")],
        f"{INVENTORY}::TestAnOrder::test_cancelled_before_it_was_created_reserves_nothing",
    ),
    Remedy(
        "H3",
        "a tombstone in payments: a late `order.created` charges nothing",
        [Patch("payments/rules.py", "    (None, OrderCancelled): Step(State.CANCELLED_BEFORE),\n")],
        f"{PAYMENTS}::TestEarlyCancellation::test_before_the_order_leaves_no_payment",
    ),
    Remedy(
        "H3",
        "an advisory lock for an order without a row (inventory)",
        [Patch("inventory/queries.py", '    session.execute(_LOCK_KEYS, {"keys": keys})\n')],
        f"{INVENTORY}::TestRaces::test_created_and_cancelled_at_the_same_time",
    ),
    Remedy(
        "H3",
        "an advisory lock for an order without a row (payments)",
        [Patch("payments/queries.py", '    session.execute(_LOCK_KEYS, {"keys": keys})\n')],
        f"{PAYMENTS}::TestEarlyCancellation::test_in_two_concurrent_transactions",
    ),
    Remedy(
        "H4",
        "the order's row lock",
        [NO_ORDER_LOCK],
        f"{RACES}::TestOneOrder::test_h4_both_positive_replies_in_two_workers_confirm_it",
    ),
    Remedy(
        "H5",
        "the inbox: each message is handled once",
        [NO_INBOX],
        f"{DELIVERY}::test_waiting_events_are_handled_in_batches_and_duplicates_once",
    ),
    Remedy(
        "H5",
        "one reservation per order: the same event under another id changes nothing",
        [
            Patch(
                "inventory/rules.py",
                "    return STEPS.get((status, trigger))\n",
                "    return STEPS.get((status, trigger)) or STEPS.get((None, trigger))\n",
            )
        ],
        f"{INVENTORY}::TestAnOrder::test_counts_once_however_often_its_events_are_delivered",
    ),
    Remedy(
        "H5",
        "the provider's idempotency key is derived from the order",
        [
            Patch(
                "payments/queries.py",
                'key=f"{order_id}:{operation}"',
                "key=f\"{__import__('uuid').uuid4()}:{operation}\"",
            )
        ],
        f"{RACES}::test_h5_the_provider_gets_the_same_key_for_every_request_of_an_order",
    ),
    Remedy(
        "H5",
        "an idempotency key that another call of the same batch holds is reported as in use",
        [
            Patch(
                "extensions/idempotency/keys.py",
                "    if name in _in_use:\n        raise IdempotencyKeyInUse(retry_after=1)\n",
            )
        ],
        f"{PLACING}::test_the_second_of_two_concurrent_calls_with_one_key_finds_it_in_use",
    ),
    Remedy(
        "H5",
        "after a COMMIT whose result is lost, no order of the batch is placed again",
        [
            Patch(
                "extensions/idempotency/calls.py",
                "            if is_outage(error):  # also CommitUnknown: do not repeat committed calls\n",
                "            if isinstance(error, DatabaseUnavailable):\n",
            )
        ],
        f"{PLACING}::test_a_commit_without_a_response_is_unknown_and_is_not_retried",
    ),
    Remedy(
        "H6",
        "the inbox row is in the same transaction: committed work is not repeated",
        [NO_INBOX],
        f"{RACES}::test_h6_a_crash_between_commit_and_ack_repeats_nothing",
    ),
    Remedy(
        "H6",
        "the ack comes after the commit",
        [
            Patch(
                "extensions/messaging/event_handler.py",
                "        events, undecodable = [], []\n",
                "        self._ack(batch)\n        events, undecodable = [], []\n",
            )
        ],
        f"{RACES}::test_h6_a_crash_before_the_commit_loses_nothing",
    ),
    Remedy(
        "H7",
        "the outbox: a row is deleted only after the broker's confirm",
        [
            Patch(
                "extensions/messaging/outbox_relay.py",
                "if str(row.message_id) in outcome.confirmed]",
                "if str(row.message_id) not in outcome.refused]",
            )
        ],
        f"{RACES}::test_h7_events_committed_during_a_broker_outage_arrive",
        own_servers=True,
    ),
    Remedy(
        "H7",
        "the relay also publishes events that an earlier process left",
        [
            Patch(
                "extensions/messaging/outbox_relay.py",
                "        while True:\n            stopping = self._stopping\n",
                "        self._wakeup.wait()\n        while True:\n            stopping = self._stopping\n",
            )
        ],
        "tests/service/extensions/messaging/test_outbox.py::test_events_committed_before_the_start_are_relayed",
    ),
    Remedy(
        "H7",
        "publisher confirms",
        [
            Patch(
                "extensions/messaging/publisher.py",
                "                self._await_confirms(part)\n",
                "                part.confirmed |= set(part.unconfirmed.values())\n",
            )
        ],
        f"{RACES}::test_h7_messages_refused_by_the_broker_do_not_count_as_delivered",
    ),
    Remedy(
        "H7",
        "messages are persistent",
        [Patch("extensions/messaging/publisher.py", "            delivery_mode=2,\n")],
        "tests/unit/extensions/messaging/test_connection.py::test_a_message_is_persistent_json_with_its_identity",
    ),
    Remedy(
        "H8",
        "the whole topology is declared before the first publish (by listener and publisher: both removed)",
        [
            Patch("extensions/messaging/publisher.py", ENSURES),
            Patch("extensions/messaging/listener.py", ENSURES),
            Patch(
                "extensions/messaging/listener.py",
                "        for subscription in list(self._subscriptions):\n            channel",
                "        first = connection.channel()\n"
                "        first.exchange_declare('nameko-rpc', 'topic', durable=True, auto_delete=False)\n"
                "        for subscription in list(self._subscriptions):\n            channel",
            ),
        ],
        f"{RACES}::test_h8_the_queues_exist_before_the_first_event",
    ),
    Remedy(
        "H8",
        "a service that may not declare the topology waits for it before it publishes",
        [Patch("extensions/messaging/publisher.py", ENSURES)],
        "tests/service/test_permissions.py::test_h8_a_publisher_without_permission_to_declare_queues_publishes_nothing_without_them",
        own_servers=True,
    ),
    Remedy(
        "H8",
        "`mandatory`: an event that no queue received stays in the outbox",
        [
            Patch(
                "extensions/messaging/outbox_relay.py",
                "mandatory=bool(event and event.consumers)",
                "mandatory=bool(event and event.consumers and False)",
            )
        ],
        "tests/service/extensions/messaging/test_outbox.py::test_an_unroutable_event_waits_and_delays_no_other",
    ),
    Remedy(
        "H9",
        "a failed message is retried",
        [
            Patch(
                "extensions/messaging/retries.py",
                "        return lambda: self._delay(queue, message, delay, attempts)\n",
                "        return lambda: None\n",
            )
        ],
        f"{DELIVERY}::test_a_failed_event_is_retried_and_delays_no_other",
    ),
    Remedy(
        "H9",
        "retries are limited, and end in a dead letter",
        [
            Patch("extensions/messaging/retries.py", "        if attempts > len(delays):\n", "        if False:\n"),
            Patch("extensions/messaging/retries.py", "delays[attempts - 1]", "delays[min(attempts, len(delays)) - 1]"),
        ],
        f"{DELIVERY}::test_an_event_that_always_fails_becomes_a_dead_letter_that_can_be_replayed_once",
    ),
    Remedy(
        "H9",
        "an outage does not count as a try",
        [
            Patch(
                "extensions/messaging/event_handler.py",
                "            if failure is not None and is_general_outage(failure):\n                raise failure\n",
            )
        ],
        f"{DELIVERY}::test_an_outage_of_the_database_uses_no_retries",
        own_servers=True,
    ),
    Remedy(
        "H10",
        "the deadline's timer cancels the order; H1 and H2 then compensate",
        [
            Patch(
                "orders/use_cases.py",
                ".where(UNDECIDED, Order.deadline_at <= func.statement_timestamp())",
                ".where(UNDECIDED, Order.id.is_(None))",
            )
        ],
        f"{ORDERS}::test_an_order_without_replies_is_cancelled_at_its_deadline",
    ),
    Remedy(
        "H11",
        "the order's row lock: one of the two succeeds",
        [NO_ORDER_LOCK],
        f"{RACES}::TestOneOrder::test_h11_a_cancellation_wins_over_a_later_confirmation",
    ),
    Remedy(
        "H11",
        "the order's row lock: the other one gets an error",
        [NO_ORDER_LOCK],
        f"{RACES}::TestOneOrder::test_h11_a_shipment_wins_over_a_later_cancellation",
    ),
    Remedy(
        "H11",
        "a cancellation after the confirmation returns the stock",
        [
            Patch(
                "inventory/rules.py",
                "    (Status.COMMITTED, OrderCancelled): Step(\n"
                "        Status.RETURNED, on_hand=+1, publishes=partial(StockReleased, returned=True)\n    ),\n",
            )
        ],
        f"{INVENTORY}::TestAnOrder::test_is_returned_after_it_was_committed",
    ),
    Remedy(
        "H11",
        "a cancellation after the confirmation refunds the payment",
        [
            Patch(
                "payments/rules.py",
                "    return STEPS.get((state, trigger))\n",
                "    return STEPS.get((state, trigger)) if state is not State.CAPTURED else None\n",
            )
        ],
        f"{PAYMENTS}::TestAnAuthorisedPayment::test_is_refunded_after_it_was_captured",
    ),
    Remedy(
        "H12",
        "the server computes the price",
        [
            Patch("orders/pricing.py", "price_snapshot=catalog[product_id].price", "price_snapshot=stated[product_id]"),
            Patch(
                "orders/pricing.py",
                "    quantities: dict[UUID, int] = {}\n",
                "    quantities: dict[UUID, int] = {}\n"
                "    stated = {one.product_id: one.price_snapshot or catalog[one.product_id].price for one in items}\n",
            ),
            Patch("orders/pricing.py", "item.price_snapshot is None or item.price_snapshot == price", "True"),
        ],
        "tests/unit/orders/test_pricing.py::test_the_refusal_names_both_a_changed_price_and_a_changed_total",
    ),
    Remedy(
        "H12",
        "the price that the client states is compared",
        [Patch("orders/pricing.py", "item.price_snapshot is None or item.price_snapshot == price", "True")],
        f"{ORDERS}::test_the_refusal_of_an_invalid_order_names_the_field",
    ),
    Remedy(
        "H13",
        "stock is locked in a fixed order (without it: in any order)",
        [Patch("inventory/queries.py", ".order_by(Stock.product_id)", ".order_by(text('random()'))")],
        f"{RACES}::test_h13_orders_of_the_same_products_do_not_deadlock",
    ),
    Remedy(
        "H13",
        "lines of the same product are merged",
        [
            Patch(
                "inventory/rules.py",
                "lines[item.product_id] = lines.get(item.product_id, 0) + item.quantity",
                "lines[item.product_id] = item.quantity",
            )
        ],
        "tests/unit/inventory/test_rules.py::TestReserving::test_quantities_of_one_product_are_added",
    ),
    Remedy(
        "H13",
        "a deadlock (40P01) is retried, and does not count as a try",
        [
            Patch(
                "extensions/storage/engine.py", "(SERIALIZATION_FAILURE, DEADLOCK_DETECTED)", "(SERIALIZATION_FAILURE,)"
            )
        ],
        f"{RACES}::test_h13_a_deadlock_is_retried_without_a_limit",
    ),
    Remedy(
        "H14",
        "the row lock on the stock that the rule reads",
        [
            Patch(
                "inventory/queries.py",
                "        .order_by(Stock.product_id)\n        .with_for_update()\n",
                "        .order_by(Stock.product_id)\n",
            )
        ],
        f"{RACES}::test_h14_the_last_unit_is_sold_once",
    ),
    Remedy(
        "H14",
        "all lines of an order are reserved, or none",
        [
            Patch(
                "inventory/rules.py",
                "if step.becomes is Status.RESERVED and (short := shortages(lines, stock)):",
                "if step.becomes is Status.RESERVED and len(short := shortages(lines, stock)) == len(lines):",
            )
        ],
        f"{INVENTORY}::TestAnOrder::test_fails_completely_if_one_line_is_short",
    ),
    Remedy(
        "H14",
        "the CHECK constraint of the database",
        [
            Patch(
                "inventory/migrations/0001_stock_reservations_and_ledger.py",
                '"0 <= reserved AND reserved <= on_hand"',
                '"true"',
            )
        ],
        f"{RACES}::test_h14_the_database_refuses_impossible_stock",
        own_servers=True,
    ),
    Remedy(
        "H15",
        "a cache entry is stored only if no newer version is known",
        [Patch("extensions/cache/entries.py", "if tonumber(ARGV[1]) < known then return 0 end\n")],
        "tests/service/extensions/cache/test_versioned_cache.py::test_a_reader_that_began_before_the_change_cannot_store_what_it_read",
    ),
    Remedy(
        "H15",
        "entries are invalidated before and after the commit",
        [
            Patch("extensions/storage/unit_of_work.py", "        self._before_commit.append((call, arguments))\n"),
            Patch("extensions/storage/unit_of_work.py", "        self.after_commit(call, *arguments)\n"),
        ],
        "tests/service/catalog/test_products.py::TestUpdate::test_is_visible_immediately_in_spite_of_the_cache",
    ),
    Remedy(
        "H16",
        "an amount is a decimal string, never a number",
        [
            Patch(
                "contracts/base.py",
                "    if isinstance(value, str) and _MONEY.fullmatch(value):\n        return Decimal(value)",
                "    if isinstance(value, str | float | int):\n        return Decimal(str(value))",
            )
        ],
        "tests/unit/contracts/test_fields.py::test_invalid_amounts_are_refused",
    ),
    Remedy(
        "H16",
        "exactly 10000.00 is accepted",
        [Patch("payments/provider.py", "if call.amount > self.limit:", "if call.amount >= self.limit:")],
        "tests/unit/payments/test_provider.py::test_an_amount_up_to_the_limit_is_approved",
    ),
]
