"""The event handler: it handles the waiting messages of its queues in one transaction, then acknowledges them.

How it handles failures:

* The database or the broker is unavailable, or there is a deadlock: the same messages are handled again until it
  succeeds.
* Another transaction locks a row that a message needs: the message goes to a retry queue, and the others are handled,
  LOCKED_AT_ONCE messages of the batch at a time.
* A batch fails: its messages are handled one by one, so that only the faulty one fails.
* A single message fails: it goes to a retry queue, for a longer time after each attempt. After the last attempt it
  becomes a dead letter.
* The broker accepts no messages, so a message cannot go to a retry queue: this message waits in the process, and the
  handler continues with others.
* A message cannot be decoded: it becomes a dead letter at once.
* A message was delivered several times without an acknowledgement (a suspect, see event_queue.py): it may crash this
  process, so it is handled in a separate batch.
"""

import functools
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import eventlet
from eventlet.event import Event as Signal
from nameko import config
from nameko.exceptions import ConfigurationError, ContainerBeingKilled
from nameko.extensions import Entrypoint, register_entrypoint

from contracts.base import Event, Received
from contracts.events import handler_name
from extensions.messaging.connection import ack
from extensions.messaging.dead_letters import DeadLetters
from extensions.messaging.event_queue import Delivery, EventQueue
from extensions.messaging.inbound import Undecodable
from extensions.messaging.listener import Listener
from extensions.messaging.publisher import ConfirmedPublisher
from extensions.messaging.retries import Retries
from extensions.observability.instruments import HandlerInstruments
from extensions.observability.metrics import Metrics
from extensions.observability.traces import start_trace
from extensions.runtime.backoff import Backoff
from extensions.runtime.interruptions import INTERRUPTIONS, Interrupted
from extensions.runtime.progress import Loop, loops_of
from extensions.storage.engine import LockTimeout, is_general_outage, is_outage
from extensions.storage.lock_timeouts import LockTimeouts

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0
# After a lock timeout. Otherwise each message that needs the locked row would delay all others by the full timeout.
SHORT_LOCK_TIMEOUT = "100ms"
# If a batch needs a locked row, each of its messages is handled by itself, so many at a time. One after the other, the
# messages that need the row would delay the others by a timeout each: many orders of one product would stop all orders.
LOCKED_AT_ONCE = 8
# The least time between the starts of two batches, unless a batch is full. A transaction for many messages costs hardly
# more than one for a single message. A message that arrives after an idle period is handled immediately.
BATCH_INTERVAL_SECONDS = 0.06


class EventHandler(Entrypoint):
    """Consumes the queues of its events, and calls its method with a list of received events of all these kinds."""

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
        self._waiting_for_retry: list[Delivery] = []
        self._wakeup = Signal()
        self._instruments: Any = None
        self._retries: Any = None
        self._loop: Any = None
        self._progress = Loop("")
        self._stopping = False
        self._stop_by = 0.0
        self._lock_timeouts: Any = None
        self._batch_started_at = 0.0

    def setup(self) -> None:
        """Subscribe. Raises ConfigurationError for a wrong name of the method, and for an event without a queue."""
        first, *others = self.events
        if not others and self.method_name != handler_name(first):
            message = f"{self.method_name} handles {first.__name__}: rename it to {handler_name(first)}"
            raise ConfigurationError(message)
        self._require_queues()
        self.batch = max(1, int(config.get("EVENT_BATCH", 50)))
        self._lock_timeouts = LockTimeouts("", SHORT_LOCK_TIMEOUT)
        self._instruments = HandlerInstruments(self.metrics, self.method_name)
        self._retries = Retries(self.publisher, self.dead_letters, self._instruments)
        service, prefetch = self.container.service_name, 2 * self.batch
        self._queues = [
            EventQueue(service, event, prefetch, self.add_delivery, self.discard_deliveries) for event in self.events
        ]
        for queue in self._queues:
            self.listener.subscribe(queue)
        self.dead_letters.subscribe()

    def _require_queues(self) -> None:
        """Raise ConfigurationError if the contracts give the service no queue for an event.

        It would wait for the queue without end. Only a service of the registry is checked: a test may define a service
        whose user may declare its queues.
        """
        service = self.container.service_name
        if self.container.service_cls.__module__ != f"{service}.service":
            return
        for event in self.events:
            if service not in event.consumers:
                where = f"{event.__module__.replace('.', '/')}.py"
                message = f"{service} handles {event.event_type}: add {service!r} to the event's `consumers` in {where}"
                raise ConfigurationError(message)

    def start(self) -> None:
        """Start the loop that handles deliveries."""
        self._loop = self.container.spawn_managed_thread(self._run, identifier=f"events.{self.method_name}")

    def stop(self) -> None:
        """Stop consuming, and handle all deliveries within STOP_SECONDS; an unhandled one counts as delivered once."""
        for greenlet in [eventlet.spawn(self.listener.unsubscribe, queue) for queue in self._queues]:
            greenlet.wait()
        self._stop_by = time.monotonic() + STOP_SECONDS
        self._stopping = True
        self._wake()
        if self._loop is not None:
            self._loop.wait()

    def kill(self) -> None:
        """Start no other batch. The container kills the loop, and the broker redelivers unacknowledged messages."""
        self._stopping = True

    # Called by the queues

    def add_delivery(self, delivery: Delivery) -> None:
        """Add one delivery to those that the loop handles."""
        (self._suspects if delivery.is_suspect else self._waiting).append(delivery)
        self._wake()

    def discard_deliveries(self) -> None:
        """Discard all waiting deliveries: the connection is lost, and the broker will deliver them again."""
        self._waiting.clear()
        self._suspects.clear()

    # The loop

    def _wake(self) -> None:
        if not self._wakeup.ready():
            self._wakeup.send()

    def _run(self) -> None:
        with loops_of(self.container).running(f"events.{self.method_name}") as self._progress:
            self._handle_all()

    def _handle_all(self) -> None:
        while self._await_batch():
            self._progress.report_progress()
            self._batch_started_at = time.monotonic()
            batch = self._next_batch()
            if not self._handle(batch):
                return
            self._ack(batch)

    def _await_batch(self) -> bool:
        """Wait until a batch is due. Returns False when the service has stopped."""
        while not self._is_batch_due():
            if self._stopping:
                return False
            self._wakeup = Signal()
            self._progress.report_idle()
            self._wakeup.wait()
        return not self._stopping or time.monotonic() < self._stop_by

    def _is_batch_due(self) -> bool:
        """Tell whether a delivery waits, after the rest of BATCH_INTERVAL_SECONDS unless a full batch waits."""
        pause = self._batch_started_at + BATCH_INTERVAL_SECONDS - time.monotonic()
        if pause > 0 and 0 < len(self._waiting) < self.batch and not self._stopping:
            eventlet.sleep(pause)
        return bool(self._waiting or self._suspects)

    def _next_batch(self) -> list[Delivery]:
        """Remove and return the next batch. A suspect is a separate batch, after all other messages.

        Suspects are taken in random order: behind one that crashes this process each time, the others would all reach
        their delivery limit.
        """
        if not self._waiting:
            return [self._suspects.pop(random.randrange(len(self._suspects)))]  # noqa: S311  (no secret)
        return [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]

    def _ack(self, batch: list[Delivery]) -> None:
        last: dict[EventQueue, Delivery] = {}
        for delivery in batch:
            if delivery.channel is not delivery.source.channel:
                continue  # the connection was lost meanwhile: it is redelivered, and the inbox recognises it
            if delivery in self._waiting_for_retry:
                continue
            if self._suspects or self._waiting_for_retry:
                ack(delivery.channel, delivery.message.delivery_tag)
            else:
                last[delivery.source] = delivery
        for delivery in last.values():
            # With none left behind, a queue is handled in its order: all messages up to the last tag are handled.
            ack(delivery.channel, delivery.message.delivery_tag, multiple=True)

    def _handle(self, batch: list[Delivery]) -> bool:
        """Handle, delay or store as a dead letter each delivery. Returns False when the service stops first."""
        events, undecodable = [], []
        for delivery in batch:
            try:
                events.append((delivery, delivery.decode()))
            except Undecodable as error:
                undecodable.append((delivery.source.queue, delivery.message, error))
        store = functools.partial(self.dead_letters.store_all, undecodable)
        if undecodable and not self._repeat_through_outages(store, self._progress):
            return False
        if not events:
            return True
        began = time.monotonic()
        failure = self._run_through_outages([received for _, received in events])
        if failure is None:
            self._instruments.handled(len(events), began, events[0][1].message_id)
            return True
        if isinstance(failure, ContainerBeingKilled) or (self._stopping and isinstance(failure, Interrupted)):
            return False  # the broker will redeliver them
        if len(events) == 1:
            delivery = events[0][0]
            start_trace(delivery.message.headers or {}, self.container.service_name)
            self._retry(delivery, self._retries.after(delivery.source.queue, delivery.message, failure))
            return True
        at_once = LOCKED_AT_ONCE if isinstance(failure, LockTimeout) else 1
        return self._handle_each([delivery for delivery, _ in events], at_once)

    def _handle_each(self, batch: list[Delivery], at_once: int) -> bool:
        """Handle each delivery by itself, `at_once` at a time. Returns False when the service stops first."""
        remaining, has_stopped = iter(batch), False

        def work() -> None:
            nonlocal has_stopped
            for delivery in remaining:
                if not self._handle([delivery]):
                    has_stopped = True
                if has_stopped:
                    return

        workers = [eventlet.spawn(work) for _ in range(min(at_once, len(batch)))]
        try:
            for worker in workers:
                worker.wait()
        finally:
            for worker in workers:
                worker.kill()
        return not has_stopped

    def _retry(self, delivery: Delivery, action: Callable[[], None]) -> None:
        """Hand a failed event over to its retry queue or the dead letters; during an outage, later in a greenlet."""
        try:
            action()
        except Exception as error:
            if not is_outage(error):
                raise
            # At most the prefetch of the queues.
            self._waiting_for_retry.append(delivery)
            self.container.spawn_managed_thread(
                functools.partial(self._retry_later, delivery, action), identifier=f"retry.{self.method_name}"
            )

    def _retry_later(self, delivery: Delivery, action: Callable[[], None]) -> None:
        with loops_of(self.container).running(f"events.{self.method_name}.retry") as loop:
            done = self._repeat_through_outages(action, loop, lambda: delivery.channel is delivery.source.channel)
        if done and delivery.channel is delivery.source.channel:
            ack(delivery.channel, delivery.message.delivery_tag)
        # Only now: as long as it is in the list, nothing acknowledges it together with later messages.
        self._waiting_for_retry.remove(delivery)

    def _run_through_outages(self, events: list[Received[Any]]) -> BaseException | None:
        """Run the method, again as long as an outage makes it fail. Returns its exception, None on success."""
        failures: list[BaseException | None] = []

        def attempt() -> None:
            failure = self._run_method(events)
            if failure is not None and is_general_outage(failure):
                raise failure
            failures.append(failure)

        if not self._repeat_through_outages(attempt, self._progress):
            return ContainerBeingKilled()
        return failures[0]

    def _repeat_through_outages(
        self, attempt: Callable[[], object], loop: Loop, go_on: Callable[[], bool] = lambda: True
    ) -> bool:
        """Call `attempt` again as long as an outage makes it fail, and `go_on` allows it. Each call is progress.

        Returns False when it did not succeed, because the service stops, or `go_on` returned False.
        """
        backoff = Backoff(first=0.1, longest=5.0)
        while go_on():
            loop.report_progress()
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
                loop.report_idle(pause)
                eventlet.sleep(pause)
            else:
                return True
        return False

    def _run_method(self, events: list[Received[Any]]) -> BaseException | None:
        """Run the service method in a worker. Returns its exception, None when it succeeded."""
        finished = Signal()

        def handle_result(_worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            finished.send(exc_info[1] if exc_info else None)
            return result, None  # handled here: retried, or stored as a dead letter with its reason

        self.container.spawn_worker(self, (events, self._lock_timeouts), {}, handle_result=handle_result)
        return finished.wait()


def handles(event: type[Event], *more: type[Event]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Handle these events with the decorated method. It is called with a list of events not handled before.

    The method and the inbox share one transaction, which is committed before the messages are acknowledged. Let one
    method handle the events that change the same rows: it handles them together, and locks each row once.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: Any, events: Sequence[Received[Any]], lock_timeouts: LockTimeouts) -> None:
            first = events[0]
            start_trace({"x-request-id": first.request_id, "traceparent": first.traceparent}, self.name)
            self.work.lock_timeouts = lock_timeouts
            try:
                with self.work.transaction():
                    unseen = self.work.add_to_inbox(events)
                    if unseen:
                        method(self, unseen)
            except INTERRUPTIONS as error:
                raise Interrupted(f"{method.__name__} was interrupted by {type(error).__name__}: {error}") from error

        register_entrypoint(run, EventHandler(event, *more))
        return run

    return decorate
