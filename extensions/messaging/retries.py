"""What becomes of an event on which its handler failed: it comes again, later and later, and is buried in the end."""

import logging
from collections.abc import Callable

import amqp

from extensions.messaging import topology
from extensions.messaging.connection import BrokerUnavailable
from extensions.messaging.dead_letters import DeadLetters, copy_of
from extensions.messaging.publisher import ConfirmedPublisher
from extensions.observability.instruments import HandlerInstruments
from extensions.storage.engine import LockTimeout

log = logging.getLogger(__name__)

ATTEMPTS_HEADER = "x-attempts"
ASIDE_DELAY_MS = 4000


class Retries:
    """Puts events off by way of the retry queues, or buries them with the dead letters."""

    def __init__(
        self, publisher: ConfirmedPublisher, dead_letters: DeadLetters, instruments: HandlerInstruments
    ) -> None:
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._instruments = instruments

    def after(self, queue: str, message: amqp.Message, failure: BaseException) -> Callable[[], None]:
        """Return what to do with `message` of `queue`, to be repeated until the infrastructure lets it through."""
        message_id = message.properties.get("message_id")
        delays = topology.retry_delays()
        if delays and isinstance(failure, LockTimeout):
            # That somebody else holds its row spends no try of it.
            delay = _nearest(delays, ASIDE_DELAY_MS)
            log.warning("%s: a row that %s needs is locked; again in %d ms", queue, message_id, delay)
            return lambda: self._put_off(queue, message, delay, attempts_of(message))
        self._instruments.failed.inc()
        attempts = attempts_of(message) + 1
        reason = f"{type(failure).__name__}: {failure}"
        if attempts > len(delays):
            log.error("%s gives up on %s after %d tries: %s", queue, message_id, attempts, reason)
            return lambda: self._dead_letters.bury(queue, message, reason, attempts)
        delay = delays[attempts - 1]
        log.warning(
            "%s failed on %s (try %d): %s; again in %d ms",
            queue,
            message_id,
            attempts,
            reason,
            delay,
            exc_info=failure if attempts == 1 else None,
        )
        return lambda: self._put_off(queue, message, delay, attempts)

    def _put_off(self, queue: str, message: amqp.Message, delay: int, attempts: int) -> None:
        """Hand the message to a retry queue, confirmed, before it is acked."""
        outgoing = copy_of(message, topology.retry_exchange(delay), queue)
        outgoing.headers = {**outgoing.headers, ATTEMPTS_HEADER: attempts}
        if self._publisher.publish([outgoing]):
            raise BrokerUnavailable
        self._instruments.retried.inc()


def _nearest(delays: list[int], wanted: int) -> int:
    return min(delays, key=lambda delay: abs(delay - wanted))


def attempts_of(message: amqp.Message) -> int:
    """Return how often the message was tried; a sender can claim anything, and garbage counts as never."""
    try:
        return max(0, int((message.headers or {}).get(ATTEMPTS_HEADER, 0)))
    except (TypeError, ValueError, OverflowError):
        return 0
