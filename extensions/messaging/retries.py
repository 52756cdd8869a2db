"""What happens to an event whose handler failed: a retry after a growing delay, and finally a dead letter."""

import logging
from collections.abc import Callable

import amqp

from extensions.messaging import topology
from extensions.messaging.dead_letters import DeadLetters
from extensions.messaging.publisher import ConfirmedPublisher, copy_of
from extensions.observability.instruments import HandlerInstruments
from extensions.storage.engine import LockTimeout

log = logging.getLogger(__name__)

ATTEMPTS_HEADER = "x-attempts"
# The delay after which an event is handled again that needs a row which another transaction holds.
LOCKED_DELAY_MS = 4000


class Retries:
    """Sends failed events to a retry queue, or stores them as dead letters."""

    def __init__(
        self, publisher: ConfirmedPublisher, dead_letters: DeadLetters, instruments: HandlerInstruments
    ) -> None:
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._instruments = instruments

    def after(self, queue: str, message: amqp.Message, failure: BaseException) -> Callable[[], None]:
        """Return the action for `message` of `queue` after `failure`. The caller repeats it through outages."""
        message_id = message.properties.get("message_id")
        delays = topology.retry_delays()
        if delays and isinstance(failure, LockTimeout):
            # A row that another transaction holds is not the message's fault: this does not count as an attempt.
            delay = _nearest(delays, LOCKED_DELAY_MS)
            log.warning("%s: a row that %s needs is locked; next try in %d ms", queue, message_id, delay)
            return lambda: self._delay(queue, message, delay, attempts_of(message))
        self._instruments.failed.inc()
        attempts = attempts_of(message) + 1
        reason = f"{type(failure).__name__}: {failure}"
        if attempts > len(delays):
            log.error("%s failed on %s %d times, storing it as a dead letter: %s", queue, message_id, attempts, reason)
            return lambda: self._dead_letters.store(queue, message, reason, attempts)
        delay = delays[attempts - 1]
        log.warning(
            "%s failed on %s (try %d): %s; next try in %d ms",
            queue,
            message_id,
            attempts,
            reason,
            delay,
            exc_info=failure if attempts == 1 else None,
        )
        return lambda: self._delay(queue, message, delay, attempts)

    def _delay(self, queue: str, message: amqp.Message, delay: int, attempts: int) -> None:
        """Publish the message to a retry queue, with confirms; the caller acknowledges it afterwards."""
        outgoing = copy_of(message, topology.retry_exchange(delay), queue)
        outgoing.headers = {**outgoing.headers, ATTEMPTS_HEADER: attempts}
        if refusal := self._publisher.publish_one(outgoing):
            # Without a retry queue no repetition helps, and it would stop all other events of the handler.
            self._dead_letters.store(queue, message, f"the retry in {delay} ms was not possible: {refusal}", attempts)
        else:
            self._instruments.retried.inc()


def _nearest(delays: list[int], wanted: int) -> int:
    return min(delays, key=lambda delay: abs(delay - wanted))


def attempts_of(message: amqp.Message) -> int:
    """Return how often the message was handled. The header is the sender's: an invalid value counts as 0."""
    try:
        return max(0, int((message.headers or {}).get(ATTEMPTS_HEADER, 0)))
    except (TypeError, ValueError, OverflowError):
        return 0
