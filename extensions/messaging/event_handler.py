"""The event handler: takes what is waiting in its queues, handles it in one transaction, then acks.

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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import amqp
import eventlet
from eventlet.event import Event as Signal
from nameko import config
from nameko.exceptions import ConfigurationError, ContainerBeingKilled
from nameko.extensions import Entrypoint, register_entrypoint

from contracts.base import Event, Received
from contracts.events import handler_name, queue_name
from extensions.messaging import topology
from extensions.messaging.connection import ack, has_own_user
from extensions.messaging.dead_letters import LIVES_HEADER, DeadLetters
from extensions.messaging.inbound import Undecodable, require_event
from extensions.messaging.listener import Listener
from extensions.messaging.publisher import ConfirmedPublisher
from extensions.messaging.retries import Retries
from extensions.observability.instruments import HandlerInstruments
from extensions.observability.metrics import Metrics
from extensions.observability.traces import start_trace
from extensions.runtime.backoff import Backoff
from extensions.runtime.interruptions import INTERRUPTIONS, Interrupted
from extensions.storage.engine import LockTimeout, is_outage

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0
SUSPECT_DELIVERIES = 3
# Once a row was found locked for too long, waiting for it as long again and again would hold up everybody else.
IMPATIENT_SECONDS, IMPATIENT_LOCK_TIMEOUT = 60.0, "500ms"
# A batch begins so long after the one before, unless it is full: a transaction for many messages costs hardly more than
# one for a single message. The first message after a rest waits for nothing.
GATHER_SECONDS = 0.06


class EventQueue:
    """One queue of a handler, `<service>.on_<event>`: where its deliveries come from and are acked."""

    no_ack = False

    def __init__(self, handler: "EventHandler", event: type[Event]) -> None:
        self.event = event
        self.service = handler.container.service_name
        self.queue = queue_name(self.service, event)
        self.prefetch = 2 * handler.batch
        self.channel: Any = None
        self._handler = handler

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue: a consumer that the contract does not name brings its own, if it may."""
        if not has_own_user(self.service):
            topology.declare_dead_letter_queue(channel, self.service)
            topology.declare_event_queue(channel, self.service, self.event)
        self.channel = channel

    def on_message(self, message: amqp.Message) -> None:
        """Pass one delivery on; the prefetch bounds how many there can be."""
        self._handler.take_in(Delivery(self, self.channel, message))

    def on_disconnected(self) -> None:
        """Forget the channel, and the deliveries that came over it."""
        self.channel = None
        self._handler.forget()


class Delivery(NamedTuple):
    """A message, the queue that it came from, and the channel that it came over."""

    source: EventQueue
    channel: amqp.Channel
    message: amqp.Message

    def decode(self) -> Received[Any]:
        """Return the event that it holds. Raises Undecodable."""
        return require_event(self.message, self.source.event, self.source.service)


class EventHandler(Entrypoint):
    """Consumes the queue of each of its events, and hands its method a list of received ones, of all kinds."""

    listener = Listener()
    publisher = ConfirmedPublisher()
    dead_letters = DeadLetters()
    metrics = Metrics()

    def __init__(self, *events: type[Event]) -> None:
        super().__init__()
        self.events = events
        self.batch = 1
        self._queues: list[EventQueue] = []
        self._waiting: deque[Delivery] = deque()
        self._suspects: list[Delivery] = []
        self._arrived = Signal()
        self._instruments: Any = None
        self._retries: Any = None
        self._loop: Any = None
        self._stopping = False
        self._stop_by = 0.0
        self._impatient_until = 0.0
        self._began = 0.0

    def setup(self) -> None:
        """Subscribe. A method that handles a single event is named like its queue."""
        first, *others = self.events
        if not others and self.method_name != handler_name(first):
            message = f"{self.method_name} handles {first.__name__}: call it {handler_name(first)}"
            raise ConfigurationError(message)
        self.batch = max(1, int(config.get("EVENT_BATCH", 50)))
        self._instruments = HandlerInstruments(self.metrics, self.method_name)
        self._retries = Retries(self.publisher, self.dead_letters, self._instruments)
        self._queues = [EventQueue(self, event) for event in self.events]
        for queue in self._queues:
            self.listener.subscribe(queue)
        self.dead_letters.collect()

    def start(self) -> None:
        """Begin to handle what arrives."""
        self._loop = self.container.spawn_managed_thread(self._run, identifier=f"events.{self.method_name}")

    def stop(self) -> None:
        """Take no more, and handle what was taken, within STOP_SECONDS: what goes back counts as delivered in vain."""
        for ending in [eventlet.spawn(self.listener.unsubscribe, queue) for queue in self._queues]:
            ending.wait()
        self._stop_by = time.monotonic() + STOP_SECONDS
        self._stopping = True
        self._ring()
        if self._loop is not None:
            self._loop.wait()

    def kill(self) -> None:
        """Take no more; the container kills the loop, and the broker delivers again what was not acked."""
        self._stopping = True

    # Called by the queues

    def take_in(self, delivery: Delivery) -> None:
        """Have one delivery handled soon."""
        (self._suspects if _is_suspect(delivery.message) else self._waiting).append(delivery)
        self._ring()

    def forget(self) -> None:
        """Forget all deliveries: the connection is lost, and the broker will deliver them again."""
        self._waiting.clear()
        self._suspects.clear()

    # The loop

    def _ring(self) -> None:
        if not self._arrived.ready():
            self._arrived.send()

    def _run(self) -> None:
        while self._await_messages():
            self._began = time.monotonic()
            batch = self._take()
            if not self._handle(batch):
                return
            self._ack(batch)

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

    def _take(self) -> list[Delivery]:
        """Take the next batch, its suspects last and each by itself.

        In no order: behind one that kills us every time, the others would wait until the broker gives up on all.
        """
        if not self._waiting:
            return [self._suspects.pop(random.randrange(len(self._suspects)))]  # noqa: S311  (no secret)
        return [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]

    def _ack(self, batch: list[Delivery]) -> None:
        last: dict[EventQueue, Delivery] = {}
        for delivery in batch:
            if delivery.channel is not delivery.source.channel:
                continue  # the connection was lost meanwhile: it will come again, and the inbox knows it
            if self._suspects:
                ack(delivery.channel, delivery.message.delivery_tag)
            else:
                last[delivery.source] = delivery
        for delivery in last.values():
            # Apart from suspects, a queue is handled in its order: everything up to the last tag is done.
            ack(delivery.channel, delivery.message.delivery_tag, multiple=True)

    def _handle(self, batch: list[Delivery]) -> bool:
        """Deal with every delivery of `batch`: handle, retry later, or bury. False when the service stops first."""
        events, undecodable = [], []
        for delivery in batch:
            try:
                events.append((delivery, delivery.decode()))
            except Undecodable as error:
                undecodable.append((delivery.source.queue, delivery.message, str(error)))
        if undecodable and not self._persist(lambda: self.dead_letters.bury_all(undecodable)):
            return False
        if not events:
            return True
        began = time.monotonic()
        failure = self._persist_or_failure([received for _, received in events])
        if failure is None:
            self._instruments.handled(len(events), began, events[0][1].message_id)
            return True
        if isinstance(failure, ContainerBeingKilled) or (self._stopping and isinstance(failure, Interrupted)):
            return False  # the broker will deliver them again
        if len(events) == 1:
            delivery = events[0][0]
            start_trace(delivery.message.headers or {}, self.container.service_name)
            return self._persist(self._retries.after(delivery.source.queue, delivery.message, failure))
        return all(self._handle([delivery]) for delivery, _ in events)

    def _persist_or_failure(self, events: list[Received[Any]]) -> BaseException | None:
        """Run the method on `events`, through every outage. Returns what the method itself failed with."""
        failures: list[BaseException | None] = []

        def attempt() -> None:
            failure = self._run_method(events)
            if isinstance(failure, LockTimeout):
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
                name = f"{self.container.service_name}.{self.method_name}"
                log.warning("%s waits (%s); next try in %.1f s", name, error, pause)
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


def _is_suspect(message: amqp.Message) -> bool:
    """Tell whether the message came back so often that it may be the one that kills its consumers."""
    headers = message.headers or {}
    count = headers.get("x-delivery-count")
    return LIVES_HEADER in headers or (isinstance(count, int) and count >= SUSPECT_DELIVERIES)


def handles(event: type[Event], *more: type[Event]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Handle these events with the decorated method, which gets a list of those that this service has not handled yet.

    The method runs in one transaction together with the inbox; it is committed before the messages are acked. Events
    that change the same things belong into one method: it takes them all at once, and locks what they need once.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: Any, events: Sequence[Received[Any]], lock_timeout: str = "") -> None:
            first = events[0]
            start_trace({"x-request-id": first.request_id, "traceparent": first.traceparent}, self.name)
            try:
                with self.work.transaction(lock_timeout):
                    unseen = self.work.add_to_inbox(events)
                    if unseen:
                        method(self, unseen)
            except INTERRUPTIONS as error:
                raise Interrupted(f"{method.__name__} was ended by {type(error).__name__}: {error}") from error

        register_entrypoint(run, EventHandler(event, *more))
        return run

    return decorate
