"""The fifteen pitfalls of Nameko 3.0.0rc11, our guards, and for each the test that fails without it.

Where Nameko itself stumbles we do not use the part that does; the remedy is then what stands in its place.
"""

from qa.remedies.hazards import DELIVERY
from qa.remedies.remedy import Patch, Remedy

TITLES = {
    "1": "acks are lost at SIGTERM",
    "2": "a call has no deadline, and its pending entry leaks",
    "3": "a BaseException that escapes a worker leaves no ack, no reply, and a leaked connection",
    "4": "SystemExit in a worker ends the process",
    "5": "a call without `reply_to` or `content_type` kills the service, and the next one",
    "6": "an outage of the broker during a reply kills the container; a start without it exits",
    "7": "what cannot be decoded is consumed and lost",
    "8": "events that no queue is bound for vanish",
    "9": "a failing handler loses its event, or loops hot",
    "10": "all headers of a message are published again with every later one",
    "11": "calls in a circle, or in event handlers, dead-lock the worker pool",
    "12": "computing stalls the process, heartbeats included",
    "13": "the standalone client leaves a queue behind",
    "14": "the reply queue is declared again for every call",
    "15": "SO_REUSEPORT shares a port; every replica fires every timer",
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
        "the connection outlives the handlers: stop() cancels, waits until what is handled is acked, then closes",
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
        "a deadline for each call",
        [Patch("extensions/rpc/client.py", "waiting.wait(timeout=budget)", "waiting.wait()")],
        f"{PITFALLS}::test_pitfall_02_a_call_has_a_deadline",
    ),
    Remedy(
        "2",
        "the call expires with its caller",
        [Patch("extensions/rpc/client.py", "                    expiration=str(int(budget * 1000)),\n")],
        f"{PITFALLS}::test_pitfall_02_a_call_expires_with_the_deadline_of_its_caller",
    ),
    Remedy(
        "2",
        "`mandatory`: a call to nobody comes back at once",
        [Patch("extensions/rpc/client.py", "                    mandatory=True,\n")],
        f"{PITFALLS}::test_pitfall_02_a_call_to_a_missing_service_fails_at_once",
    ),
    Remedy(
        "2",
        "the pending entry is taken out, whatever happens",
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
        f"{PROCESS}::test_a_timeout_that_escapes_becomes_an_error_and_leaks_no_worker",
    ),
    Remedy(
        "3",
        "the transaction gives its connection back, whatever ends it",
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
        "GreenletExit becomes an exception, and stalls no queue",
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
        "a call without an address is no call",
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
        "what is not said to be JSON is no call",
        [Patch("extensions/messaging/inbound.py", '    if content_type != "application/json":\n', "    if False:\n")],
        f"{NO_CALL}[no content_type]",
    ),
    Remedy(
        "5",
        "nothing that a message holds ends the reader",
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
        "properties that py-amqp cannot read are left out",
        [Patch("extensions/messaging/wire/fast.py", "frame_handler=frame_handler, ")],
        f"{NO_CALL}[headers 10,000 lists deep]",
    ),
    Remedy(
        "5",
        "bodies stay bytes: the sender chooses no codec (nor for what is delivered: both taken out)",
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
        "answers go to nobody's address but an answer's: a forged one makes the broker hang up, again and again",
        [
            Patch("extensions/rpc/server.py", '        if "." in reply_to:', "        if False:"),
            Patch(
                "extensions/rpc/server.py",
                "channel.message(body, RPC_EXCHANGE, reply_to, ",
                'channel.message(body, "" if "." in reply_to else RPC_EXCHANGE, reply_to, ',
            ),
            Patch(
                "extensions/rpc/server.py",
                "channel.send(*operations)\n",
                "channel.send(*reversed(operations))\n",
            ),
        ],
        f"{POISON}::test_pitfall_05_a_forged_address_makes_the_broker_close_the_connection_once_at_most",
    ),
    Remedy(
        "6",
        "a reply that cannot be sent is left (both guards taken out)",
        [
            Patch(
                "extensions/rpc/server.py",
                "        if channel is None or channel is not self._channel or channel.connection is None:\n",
                "        if False:\n",
            ),
            Patch(
                "extensions/rpc/server.py",
                "        except (*CONNECTION_ERRORS, AttributeError) as failure:\n",
                "        except ZeroDivisionError as failure:\n",
            ),
        ],
        f"{PITFALLS}::test_pitfall_06_a_service_survives_an_outage_of_the_broker_during_a_reply",
        own_servers=True,
    ),
    Remedy(
        "6",
        "a service waits for a broker that is not there",
        [
            Patch(
                "extensions/messaging/listener.py",
                "except (*CONNECTION_ERRORS, topology.TopologyMissing) as error:\n                self._disconnect()\n",
                "except ZeroDivisionError as error:\n                self._disconnect()\n",
            )
        ],
        f"{PROCESS}::test_it_waits_for_a_broker_that_is_not_there_and_stops_when_told",
        own_servers=True,
    ),
    Remedy(
        "7",
        "what is no event becomes a dead letter",
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
        "a body has a greatest length",
        [Patch("extensions/messaging/inbound.py", "    if len(message.body) > MAX_BODY_BYTES:\n", "    if False:\n")],
        f"{NO_EVENT}[10 MB]",
    ),
    Remedy(
        "7",
        "another event's name is no event of this queue",
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
        "what the broker itself gives up on is collected",
        [Patch("extensions/messaging/dead_letters.py", "        self.listener.subscribe(self)\n", "        return\n")],
        f"{POISON}::test_messages_that_the_broker_dead_letters_are_stored",
    ),
    Remedy(
        "8",
        "the topology first, `mandatory` behind it (as H8)",
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
        "a failure is tried again, after a pause (as H9)",
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
        "a retry takes along the trace and nothing else",
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
        "headers of any size and shape stall no retry",
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
        "no event handler and no timer makes a call",
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
        "no calls in a circle",
        [
            Patch(
                "catalog/service.py",
                "        generation = self.cache",
                "        self.services.orders.list_orders()\n        generation = self.cache",
            )
        ],
        "tests/unit/test_rpc_graph.py::test_calls_go_round_in_no_circle",
    ),
    Remedy(
        "12",
        "passwords are hashed in a thread (eventlet.tpool)",
        [Patch("users/providers.py", "tpool.execute(_with_low_priority, work, *arguments)", "work(*arguments)")],
        "tests/service/users/test_accounts.py::TestLogin::test_hashing_holds_up_nobody",
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
        "the queue of answers is declared once for each connection (taken out: for each call)",
        [
            Patch(
                "extensions/rpc/client.py",
                "            with broker_errors():\n",
                "            self._channel.queue_declare(self.queue, durable=False, exclusive=True, auto_delete=True)\n"
                "            with broker_errors():\n",
            ),
        ],
        f"{PITFALLS}::test_pitfall_14_calls_declare_no_queues_and_leave_none",
        own_servers=True,
    ),
    Remedy(
        "15",
        "gateways share a port on purpose",
        [Patch("extensions/http/server/listener.py", "reuse_port=port != 0", "reuse_port=False, reuse_addr=False")],
        f"{PITFALLS}::test_pitfall_15_two_gateways_share_a_port_and_one_can_stop",
    ),
    Remedy(
        "15",
        "a timer's due time is a row: once per interval",
        [Patch("extensions/storage/timers.py", "timers.c.due_at <= now, ", "timers.c.due_at < now + interval, ")],
        "tests/service/extensions/storage/test_periodic.py::test_it_fires_once_per_interval_however_many_replicas_run",
    ),
    Remedy(
        "15",
        "never in two replicas at the same time",
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
        "tests/service/extensions/storage/test_periodic.py::test_replicas_never_run_it_at_the_same_time",
    ),
]
