"""The fifteen pitfalls of Nameko 3.0.0rc11, our guards, and the tests that fail without them.

Where a part of Nameko is faulty, our extensions do not use it; the remedy is then the part that replaces it.
"""

from qa.remedies.hazards import DELIVERY
from qa.remedies.remedy import Patch, Remedy

TITLES = {
    "1": "acks are lost at SIGTERM",
    "2": "a call has no deadline, and its pending entry leaks",
    "3": "a BaseException in a worker leads to no ack, no reply, and a leaked connection",
    "4": "SystemExit in a worker ends the process",
    "5": "a call without `reply_to` or `content_type` ends the service's process, and that of the next consumer",
    "6": "an outage of the broker during a reply ends the process; so does a start without the broker",
    "7": "a message that cannot be decoded is acked and lost",
    "8": "an event without a bound queue is lost",
    "9": "a failing handler loses its event, or retries it without a pause",
    "10": "all headers of a received message are copied to every message published while it is handled",
    "11": "circular calls, or calls in event handlers, deadlock the worker pool",
    "12": "CPU-bound work blocks the whole process, including heartbeats",
    "13": "the standalone RPC client leaves a queue behind",
    "14": "the reply queue is declared again for every call",
    "15": "SO_REUSEPORT shares a port silently; every instance runs every timer",
}

PITFALLS = "tests/service/extensions/test_pitfalls.py"
POISON = "tests/service/extensions/messaging/test_poison.py"
PROCESS = "tests/service/extensions/test_process.py"
OUTBOX = "tests/service/extensions/messaging/test_outbox.py"
NO_EVENT = f"{POISON}::test_pitfall_07_an_invalid_event_becomes_a_dead_letter_with_the_reason"
NO_CALL = f"{POISON}::test_pitfall_05_an_invalid_call_becomes_a_dead_letter_with_the_reason"
INTERRUPTED = f"{POISON}::test_pitfall_04_no_interruption_of_a_handler_ends_the_service"

REMEDIES = [
    Remedy(
        "1",
        "stop() cancels the consumers, waits until handled messages are acked, and then closes the connection",
        [
            Patch(
                "extensions/messaging/event_handler.py",
                "[eventlet.spawn(self.listener.unsubscribe, queue) for queue in self._queues]",
                "[eventlet.spawn(self.listener.stop)]",
            ),
        ],
        f"{PITFALLS}::test_pitfall_01_an_event_in_progress_at_the_stop_is_acknowledged",
    ),
    Remedy(
        "2",
        "every call has a deadline",
        [Patch("extensions/rpc/client.py", "waiting.wait(timeout=remaining())", "waiting.wait()")],
        f"{PITFALLS}::test_pitfall_02_a_call_has_a_deadline",
    ),
    Remedy(
        "2",
        "a call's message expires at its deadline",
        [Patch("extensions/rpc/client.py", "                    expiration=str(int(remaining() * 1000)),\n")],
        f"{PITFALLS}::test_pitfall_02_a_call_expires_with_the_deadline_of_its_caller",
    ),
    Remedy(
        "2",
        "`mandatory`: a call to a service that does not run fails at once",
        [Patch("extensions/rpc/client.py", "                    mandatory=True,\n")],
        f"{PITFALLS}::test_pitfall_02_a_call_to_a_missing_service_fails_at_once",
    ),
    Remedy(
        "2",
        "the pending entry is always removed",
        [Patch("extensions/rpc/client.py", "self._pending.pop(call_id, None)", "pass")],
        f"{PITFALLS}::test_pitfall_02_no_pending_call_is_left",
    ),
    Remedy(
        "3",
        "a Timeout becomes an exception (events)",
        [
            Patch(
                "extensions/runtime/interruptions.py",
                "(eventlet.Timeout, SystemExit, GreenletExit)",
                "(SystemExit, GreenletExit)",
            )
        ],
        f"{INTERRUPTED}[Timeout]",
    ),
    Remedy(
        "3",
        "a Timeout becomes an exception (calls)",
        [
            Patch(
                "extensions/runtime/interruptions.py",
                "(eventlet.Timeout, SystemExit, GreenletExit)",
                "(SystemExit, GreenletExit)",
            )
        ],
        f"{PROCESS}::test_an_uncaught_timeout_becomes_an_error_and_leaks_no_worker",
    ),
    Remedy(
        "3",
        "a transaction always returns its connection to the pool",
        [
            Patch(
                "extensions/storage/unit_of_work.py",
                "            self._session.close()\n            self._session = None\n",
                "            LEAKED.append(self._session)\n            self._session = None\n",
            ),
            Patch(
                "extensions/storage/unit_of_work.py",
                "log = logging.getLogger(__name__)\n",
                "LEAKED = []\nlog = logging.getLogger()\n",
            ),
        ],
        f"{PITFALLS}::test_pitfall_03_a_timeout_in_a_method_releases_its_database_connection",
    ),
    Remedy(
        "4",
        "SystemExit becomes an exception (events)",
        [
            Patch(
                "extensions/runtime/interruptions.py",
                "(eventlet.Timeout, SystemExit, GreenletExit)",
                "(eventlet.Timeout, GreenletExit)",
            )
        ],
        f"{INTERRUPTED}[SystemExit]",
    ),
    Remedy(
        "4",
        "SystemExit becomes an exception (calls)",
        [
            Patch(
                "extensions/runtime/interruptions.py",
                "(eventlet.Timeout, SystemExit, GreenletExit)",
                "(eventlet.Timeout, GreenletExit)",
            )
        ],
        f"{PROCESS}::test_pitfall_04_no_method_can_exit_the_process",
    ),
    Remedy(
        "4",
        "GreenletExit becomes an exception, and does not block the queue",
        [
            Patch(
                "extensions/runtime/interruptions.py",
                "(eventlet.Timeout, SystemExit, GreenletExit)",
                "(eventlet.Timeout, SystemExit)",
            )
        ],
        f"{INTERRUPTED}[GreenletExit]",
    ),
    Remedy(
        "5",
        "a call without `reply_to` is rejected",
        [
            Patch(
                "extensions/rpc/server.py",
                '        if not message.properties.get("reply_to"):\n',
                "        if False:\n",
            ),
        ],
        f"{NO_CALL}[no reply_to]",
    ),
    Remedy(
        "5",
        "a call whose content type is not JSON is rejected",
        [Patch("extensions/messaging/inbound.py", '    if content_type != "application/json":\n', "    if False:\n")],
        f"{NO_CALL}[no content_type]",
    ),
    Remedy(
        "5",
        "no content of a message ends the reader",
        [
            Patch(
                "extensions/rpc/server.py",
                "        except Exception as error:  # noqa: BLE001  (no content of a message ",
                "        except ZeroDivisionError as error:  # (",
            )
        ],
        f"{NO_CALL}[broken JSON]",
    ),
    Remedy(
        "5",
        "properties that py-amqp cannot read are dropped",
        [Patch("extensions/messaging/wire/fast.py", "frame_handler=frame_handler, ")],
        f"{NO_CALL}[headers 10,000 lists deep]",
    ),
    Remedy(
        "5",
        "bodies stay bytes, so the sender chooses no codec (for calls and for events: both removed)",
        [
            Patch("extensions/messaging/wire/fast.py", "auto_decode=False", "auto_decode=True"),
            Patch(
                "extensions/messaging/wire/fast.py",
                "        if method_sig == DELIVER and not self.is_closing:\n",
                "        if False:\n",
            ),
        ],
        f"{NO_CALL}[a codec of quadratic time]",
    ),
    Remedy(
        "5",
        "replies go only to valid reply addresses: a forged one makes the broker close the connection that sends them",
        [
            Patch("extensions/rpc/server.py", '        if "." in reply_to:', "        if False:"),
            Patch(
                "extensions/rpc/server.py",
                "channel.message(body, RPC_EXCHANGE, reply_to, ",
                'channel.message(body, "" if "." in reply_to else RPC_EXCHANGE, reply_to, ',
            ),
        ],
        f"{POISON}::test_pitfall_05_a_forged_address_makes_the_broker_close_no_connection",
    ),
    Remedy(
        "6",
        "a reply that cannot be sent is dropped (all guards removed)",
        [
            Patch(
                "extensions/rpc/server.py",
                "        if not self._is_open(channel) or channel.connection is None:\n",
                "        if False:\n",
            ),
            Patch(
                "extensions/rpc/server.py",
                "        except (BrokerUnavailable, UpstreamTimeout, *CONNECTION_ERRORS, AttributeError) as failure:\n",
                "        except ZeroDivisionError as failure:\n",
            ),
            Patch(
                "extensions/rpc/server.py",
                '        except Exception:\n            log.exception("%s: the reply could not be sent"',
                '        except ZeroDivisionError:\n            log.exception("%s: the reply could not be sent"',
            ),
        ],
        f"{PITFALLS}::test_pitfall_06_a_service_survives_an_outage_of_the_broker_during_a_reply",
        own_servers=True,
    ),
    Remedy(
        "6",
        "a service waits at its start until the broker is available",
        [
            Patch(
                "extensions/messaging/reconnecting_connection.py",
                "except (*CONNECTION_ERRORS, topology.TopologyMissing) as error:\n                self._lose(error)\n",
                "except ZeroDivisionError as error:\n                self._lose(error)\n",
            )
        ],
        f"{PROCESS}::test_the_process_waits_for_an_unavailable_broker_and_can_be_stopped",
        own_servers=True,
    ),
    Remedy(
        "7",
        "an invalid event becomes a dead letter",
        [
            Patch(
                "extensions/messaging/event_handler.py",
                "        if undecodable and not self._repeat_through_outages(",
                "        if False and not self._repeat_through_outages(",
            )
        ],
        f"{NO_EVENT}[broken JSON]",
    ),
    Remedy(
        "7",
        "the length of a body is limited",
        [Patch("extensions/messaging/inbound.py", "    if len(message.body) > MAX_BODY_BYTES:\n", "    if False:\n")],
        f"{NO_EVENT}[10 MB]",
    ),
    Remedy(
        "7",
        "an event of another type is rejected by the queue's handler",
        [
            Patch(
                "extensions/messaging/inbound.py",
                '    if properties.get("type", kind.event_type) != kind.event_type:\n',
                "    if False:\n",
            )
        ],
        f"{NO_EVENT}[another event's name]",
    ),
    Remedy(
        "7",
        "messages that the broker dead-letters are collected",
        [Patch("extensions/messaging/dead_letters.py", "        self.listener.subscribe(self)\n", "        return\n")],
        f"{POISON}::test_messages_that_the_broker_dead_letters_are_stored",
    ),
    Remedy(
        "8",
        "the topology is declared first, and publishing is `mandatory` (as H8)",
        [
            Patch(
                "extensions/messaging/outbox_relay.py",
                "mandatory=bool(event and event.consumers)",
                "mandatory=bool(event and event.consumers and False)",
            )
        ],
        f"{OUTBOX}::test_an_unroutable_event_waits_and_delays_no_other",
    ),
    Remedy(
        "9",
        "a failed message is retried after a pause (as H9)",
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
        "10",
        "a retry keeps only the trace headers",
        [
            Patch(
                "extensions/messaging/publisher.py",
                "headers=propagated_headers(message.headers),",
                "headers=dict(message.headers or {}),",
            )
        ],
        f"{PITFALLS}::test_pitfall_10_a_retry_keeps_only_the_trace_headers",
    ),
    Remedy(
        "10",
        "headers of any size and type do not block a retry",
        [
            Patch(
                "extensions/messaging/publisher.py",
                "headers=propagated_headers(message.headers),",
                "headers=dict(message.headers or {}),",
            )
        ],
        f"{POISON}::test_pitfall_09_a_failed_event_with_invalid_headers_becomes_a_dead_letter",
    ),
    Remedy(
        "11",
        "event handlers and timers make no calls",
        [
            Patch(
                "orders/service.py",
                "        self._forget(use_cases.apply_replies(",
                "        self.services.catalog.list_products()\n        self._forget(use_cases.apply_replies(",
            )
        ],
        "tests/unit/test_rpc_graph.py::test_no_event_and_no_timer_waits_for_another_service",
    ),
    Remedy(
        "11",
        "there are no circular calls",
        [
            Patch(
                "catalog/service.py",
                "        generation = self.cache",
                "        self.services.orders.list_orders()\n        generation = self.cache",
            )
        ],
        "tests/unit/test_rpc_graph.py::test_the_call_graph_has_no_cycle",
    ),
    Remedy(
        "12",
        "passwords are hashed in a thread (eventlet.tpool)",
        [Patch("users/providers.py", "tpool.execute(_with_low_priority, work, *arguments)", "work(*arguments)")],
        "tests/service/users/test_accounts.py::TestLogin::test_hashing_does_not_block_other_calls",
    ),
    Remedy(
        "13",
        "no service uses the standalone client",
        [
            Patch(
                "orders/service.py",
                "from nameko import config\n",
                "from nameko import config\nfrom nameko.standalone.rpc import ClusterRpcClient  # noqa: F401\n",
            )
        ],
        f"{PITFALLS}::test_pitfall_13_no_service_uses_the_standalone_client",
    ),
    Remedy(
        "14",
        "the reply queue is declared once per connection (without it: for each call)",
        [
            Patch(
                "extensions/rpc/client.py",
                "            with broker_errors():\n",
                "            channel.queue_declare(self.queue, durable=False, exclusive=True, auto_delete=True)\n"
                "            with broker_errors():\n",
            ),
        ],
        f"{PITFALLS}::test_pitfall_14_calls_declare_no_queues_and_leave_none",
        own_servers=True,
    ),
    Remedy(
        "15",
        "gateways share a port intentionally",
        [Patch("extensions/http/server/listener.py", "reuse_port=port != 0", "reuse_port=False, reuse_addr=False")],
        f"{PITFALLS}::test_pitfall_15_two_gateways_share_a_port_and_one_can_stop",
    ),
    Remedy(
        "15",
        "a timer's due time is a row: it runs once per interval",
        [Patch("extensions/storage/timers.py", "timers.c.due_at <= now, ", "timers.c.due_at < now + interval, ")],
        "tests/service/extensions/storage/test_periodic.py::test_it_fires_once_per_interval_however_many_instances_run",
    ),
    Remedy(
        "15",
        "a timer never runs in two instances at the same time",
        [
            Patch(
                "extensions/storage/timers.py",
                ".where(func.pg_try_advisory_xact_lock(func.hashtext(name)))",
                "",
            ),
            Patch(
                "extensions/storage/timers.py",
                "    due = or_(literal(at_once), ",
                "    return True\n    due = or_(literal(at_once), ",
            ),
        ],
        "tests/service/extensions/storage/test_periodic.py::test_instances_never_run_it_at_the_same_time",
    ),
]
