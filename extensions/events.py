"""The event handler: takes what is waiting in its queue, handles it in one transaction, then acks.

What can go wrong, and what happens then:

* the database or the broker is away, or a deadlock: wait and try the same messages again, for as long as it takes;
* somebody else holds a row that a message needs: it steps aside for a while, and its neighbours pass;
* a batch fails: its messages are handled one by one, so that only the faulty one suffers;
* one message fails: it goes to a retry queue, with a longer pause each time, and in the end to the dead letters;
* a message cannot be decoded: to the dead letters at once;
* a message keeps coming back unanswered: it or a neighbour kills this process, so each is handled by itself.
"""

import functools
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import amqp
import eventlet
from eventlet.event import Event as Signal
from nameko import config
from nameko.exceptions import ConfigurationError, ContainerBeingKilled
from nameko.extensions import Entrypoint, register_entrypoint

from contracts.base import Event, Received
from contracts.events import handler_name, queue_name
from extensions import topology
from extensions.broker import Backoff, BrokerUnavailable, ack, has_own_user
from extensions.database import LockedOut, is_outage
from extensions.dead_letters import LIVES_HEADER, DeadLetters, copy_of
from extensions.inbound import Undecodable, require_event
from extensions.interruptions import INTERRUPTIONS, Interrupted
from extensions.listener import Listener
from extensions.measures import HandlerMeasures
from extensions.metrics import Metrics
from extensions.publisher import ConfirmedPublisher
from extensions.telemetry import start_trace

log = logging.getLogger(__name__)

ATTEMPTS_HEADER = "x-attempts"
STOP_SECONDS = 5.0
SUSPECT_DELIVERIES = 3
# Once a row was found locked for too long, waiting for it as long again and again would hold up everybody else.
IMPATIENT_SECONDS, IMPATIENT_LOCK_TIMEOUT = 60.0, "500ms"
ASIDE_DELAY_MS = 4000
# A batch begins so long after the one before, unless it is full: a transaction for many messages costs hardly more than
# one for a single message. The first message after a rest waits for nothing.
GATHER_SECONDS = 0.04


class EventHandler(Entrypoint):
    """Consumes `<service>.on_<event>` and hands its method a list of received events."""

    listener = Listener()
    publisher = ConfirmedPublisher()
    dead_letters = DeadLetters()
    metrics = Metrics()
    no_ack = False

    def __init__(self, event: type[Event]) -> None:
        super().__init__()
        self.event = event
        self.queue = ""
        self.batch = self.prefetch = 1
        self._channel: Any = None
        self._waiting: deque[amqp.Message] = deque()
        self._suspects: list[amqp.Message] = []
        self._arrived = Signal()
        self._measures: Any = None
        self._loop: Any = None
        self._stopping = False
        self._stop_by = 0.0
        self._impatient_until = 0.0
        self._began = 0.0

    def setup(self) -> None:
        """Subscribe; the method's name is part of the contract, because the queue is named after it."""
        if self.method_name != handler_name(self.event):
            message = f"{self.method_name} handles {self.event.__name__}: call it {handler_name(self.event)}"
            raise ConfigurationError(message)
        self.queue = queue_name(self.container.service_name, self.event)
        self.batch = max(1, int(config.get("EVENT_BATCH", 50)))
        self.prefetch = 2 * self.batch
        self._measures = HandlerMeasures(self.metrics, self.method_name)
        self.listener.subscribe(self)
        self.dead_letters.collect()

    def start(self) -> None:
        """Begin to handle what arrives."""
        self._loop = self.container.spawn_managed_thread(self._run, identifier=f"events.{self.method_name}")

    def stop(self) -> None:
        """Take no more, and handle what was taken, within STOP_SECONDS: what goes back counts as delivered in vain."""
        self.listener.unsubscribe(self)
        self._stop_by = time.monotonic() + STOP_SECONDS
        self._stopping = True
        self._ring()
        if self._loop is not None:
            self._loop.wait()

    def kill(self) -> None:
        """Take no more; the container kills the loop, and the broker delivers again what was not acked."""
        self._stopping = True

    # Called by the listener

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue: a consumer that the contract does not name brings its own, if it may."""
        service = self.container.service_name
        if not has_own_user(service):
            topology.declare_dead_letter_queue(channel, service)
            topology.declare_event_queue(channel, service, self.event)
        self._channel = channel

    def on_message(self, message: amqp.Message) -> None:
        """Queue one delivery; the prefetch bounds how many there can be."""
        (self._suspects if _is_suspect(message) else self._waiting).append(message)
        self._ring()

    def on_disconnected(self) -> None:
        """Forget the deliveries of the lost connection."""
        self._waiting.clear()
        self._suspects.clear()
        self._channel = None

    # The loop

    def _ring(self) -> None:
        if not self._arrived.ready():
            self._arrived.send()

    def _run(self) -> None:
        while self._await_messages():
            self._began = time.monotonic()
            channel = self._channel
            batch = self._take()
            if not self._handle(batch):
                return
            if channel is self._channel and channel is not None:
                self._ack(channel, batch)

    def _await_messages(self) -> bool:
        """Wait until there is something to handle. False when the service has stopped."""
        while not self._is_due():
            if self._stopping:
                return False
            self._arrived = Signal()
            self._arrived.wait()
        return not self._stopping or time.monotonic() < self._stop_by

    def _is_due(self) -> bool:
        """Tell whether there is something to handle, after what there is has had the time to become more."""
        pause = self._began + GATHER_SECONDS - time.monotonic()
        if pause > 0 and 0 < len(self._waiting) < self.batch and not self._stopping:
            eventlet.sleep(pause)
        return bool(self._waiting or self._suspects)

    def _take(self) -> list[amqp.Message]:
        """Take the next batch, its suspects last and each by itself.

        In no order: behind one that kills us every time, the others would wait until the broker gives up on all.
        """
        if not self._waiting:
            return [self._suspects.pop(random.randrange(len(self._suspects)))]  # noqa: S311  (no secret)
        return [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]

    def _ack(self, channel: amqp.Channel, batch: list[amqp.Message]) -> None:
        if self._suspects:
            for message in batch:
                ack(channel, message.delivery_tag)
        else:
            # Apart from suspects, deliveries are handled in their order: everything up to the last tag is done.
            ack(channel, batch[-1].delivery_tag, multiple=True)

    def _handle(self, batch: list[amqp.Message]) -> bool:
        """Deal with every message of `batch`: handle, retry later, or bury. False when the service stops first."""
        events, undecodable = [], []
        for message in batch:
            try:
                events.append((message, require_event(message, self.event, self.container.service_name)))
            except Undecodable as error:
                undecodable.append((message, str(error)))
        if undecodable and not self._persist(lambda: self.dead_letters.bury_all(self.queue, undecodable)):
            return False
        if not events:
            return True
        began = time.monotonic()
        failure = self._persist_or_failure([received for _, received in events])
        if failure is None:
            self._measures.handled(len(events), began, events[0][1].message_id)
            return True
        if isinstance(failure, ContainerBeingKilled) or (self._stopping and isinstance(failure, Interrupted)):
            return False  # the broker will deliver them again
        if len(events) == 1:
            return self._give_up_for_now(events[0][0], failure)
        return all(self._handle([message]) for message, _ in events)

    def _persist_or_failure(self, events: list[Received[Any]]) -> BaseException | None:
        """Run the method on `events`, through every outage. Returns what the method itself failed with."""
        failures: list[BaseException | None] = []

        def attempt() -> None:
            failure = self._run_method(events)
            if isinstance(failure, LockedOut):
                self._impatient_until = time.monotonic() + IMPATIENT_SECONDS
            elif failure is not None and is_outage(failure):
                raise failure
            failures.append(failure)

        if not self._persist(attempt):
            return ContainerBeingKilled()
        return failures[0]

    def _persist(self, attempt: Callable[[], object]) -> bool:
        """Repeat `attempt` until the infrastructure lets it through. False when the service stops first."""
        backoff = Backoff(first=0.1, longest=5.0)
        while True:
            try:
                attempt()
            except Exception as error:
                if not is_outage(error):
                    raise
                if self._stopping:
                    return False
                pause = backoff.next_pause()
                log.warning("%s waits (%s); next try in %.1f s", self.queue, error, pause)
                eventlet.sleep(pause)
            else:
                return True

    def _run_method(self, events: list[Received[Any]]) -> BaseException | None:
        """Run the service method in a worker. Returns its exception, None when it succeeded."""
        outcome = Signal()

        def handle_result(_worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            outcome.send(exc_info[1] if exc_info else None)
            return result, None  # dealt with here: retried, or buried with its reason

        lock_timeout = IMPATIENT_LOCK_TIMEOUT if time.monotonic() < self._impatient_until else ""
        self.container.spawn_worker(self, (events, lock_timeout), {}, handle_result=handle_result)
        return outcome.wait()

    # Failure of one message

    def _give_up_for_now(self, message: amqp.Message, failure: BaseException) -> bool:
        start_trace(message.headers or {}, self.container.service_name)
        attempts = _attempts(message) + 1
        delays = topology.retry_delays()
        if delays and isinstance(failure, LockedOut):
            return self._step_aside(message, _nearest(delays, ASIDE_DELAY_MS))
        self._measures.failed.inc()
        reason = f"{type(failure).__name__}: {failure}"
        if attempts > len(delays):
            log.error(
                "%s gives up on %s after %d tries: %s",
                self.queue,
                message.properties.get("message_id"),
                attempts,
                reason,
            )
            return self._persist(lambda: self.dead_letters.bury(self.queue, message, reason, attempts))
        delay = delays[attempts - 1]
        log.warning(
            "%s failed on %s (try %d): %s; again in %d ms",
            self.queue,
            message.properties.get("message_id"),
            attempts,
            reason,
            delay,
            exc_info=failure if attempts == 1 else None,
        )
        return self._persist(lambda: self._send_to_retry(message, delay, attempts))

    def _step_aside(self, message: amqp.Message, delay: int) -> bool:
        """Have the message come again a little later; that somebody else holds its row spends no try of it."""
        message_id = message.properties.get("message_id")
        log.warning("%s: a row that %s needs is locked; again in %d ms", self.queue, message_id, delay)
        return self._persist(lambda: self._send_to_retry(message, delay, _attempts(message)))

    def _send_to_retry(self, message: amqp.Message, delay: int, attempts: int) -> None:
        """Hand the message to a retry queue, confirmed, before it is acked here."""
        outgoing = copy_of(message, topology.retry_exchange(delay), self.queue)
        outgoing.headers = {**outgoing.headers, ATTEMPTS_HEADER: attempts}
        if self.publisher.publish([outgoing]):
            raise BrokerUnavailable
        self._measures.retried.inc()


def _is_suspect(message: amqp.Message) -> bool:
    """Tell whether the message came back so often that it may be the one that kills its consumers."""
    headers = message.headers or {}
    count = headers.get("x-delivery-count")
    return LIVES_HEADER in headers or (isinstance(count, int) and count >= SUSPECT_DELIVERIES)


def _nearest(delays: list[int], wanted: int) -> int:
    return min(delays, key=lambda delay: abs(delay - wanted))


def _attempts(message: amqp.Message) -> int:
    try:
        return max(0, int((message.headers or {}).get(ATTEMPTS_HEADER, 0)))
    except (TypeError, ValueError, OverflowError):
        return 0


def handles(event: type[Event]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Handle `event` with the decorated method, which gets a list of those that this service has not handled yet.

    The method runs in one transaction together with the inbox; it is committed before the messages are acked.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: Any, events: list[Received[Any]], lock_timeout: str = "") -> None:
            first = events[0]
            start_trace({"x-request-id": first.request_id, "traceparent": first.traceparent}, self.name)
            try:
                with self.work.transaction(lock_timeout):
                    unseen = self.work.first_time(events, method.__name__)
                    if unseen:
                        method(self, unseen)
            except INTERRUPTIONS as error:
                raise Interrupted(f"{method.__name__} was ended by {type(error).__name__}: {error}") from error

        register_entrypoint(run, EventHandler(event))
        return run

    return decorate
