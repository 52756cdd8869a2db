"""RPC entrypoints in Nameko's wire format, so that `nameko shell` can call every service.

* The method runs in one transaction, which is committed before the reply is sent.
* A call expires in the queue when its caller no longer waits for it.
* A call is executed at most once. If the service dies during a call, the broker delivers the call again, and it is
  refused.
* A message that is not a call becomes a dead letter.
* A call is acknowledged on the connection that consumes, and its reply is sent on another connection. So calls are
  acknowledged even while the broker accepts no messages.
* The greenlet that reads the connection only puts calls into a queue. Another greenlet starts their workers.
"""

import functools
import logging
import time
from collections.abc import Callable, Container
from typing import Any, ParamSpec, Protocol, TypeVar, overload

import amqp
import eventlet
from eventlet.queue import LightQueue
from greenlet import GreenletExit
from nameko import config
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, SharedExtension, register_entrypoint

from contracts.base import Actor
from contracts.errors import BadCall, InternalError, ServiceError, ServiceUnavailable, UpstreamTimeout
from extensions.idempotency.calls import run_once
from extensions.messaging.connection import CONNECTION_ERRORS, BrokerUnavailable, ack
from extensions.messaging.dead_letters import DeadLetters
from extensions.messaging.inbound import Forged, Undecodable, require_json, require_routing
from extensions.messaging.listener import Listener
from extensions.messaging.sender import Sender
from extensions.messaging.topology import RPC_EXCHANGE
from extensions.observability.instruments import CallInstruments
from extensions.observability.metrics import Metrics
from extensions.rpc.call_format import budget_of, decode_call, encode_reply
from extensions.rpc.call_slots import CallSlots
from extensions.rpc.health_calls import HEALTH, HealthCalls
from extensions.rpc.signature import WireSignature, rpc_methods
from extensions.runtime.backoff import Backoff
from extensions.runtime.interruptions import INTERRUPTIONS
from extensions.runtime.progress import Loop, loops_of
from extensions.storage.engine import is_outage, is_statement_timeout
from extensions.storage.lock_timeouts import LockTimeouts

log = logging.getLogger(__name__)

# The queue survives a restart of the service. After it has expired, the broker returns calls at once (mandatory).
QUEUE_EXPIRES_MS = 10_000
# Must be longer than the deadline of client calls, and shorter than the grace period of the supervisor.
STOP_SECONDS = 6.0
# A method that may have calls that wait limits them itself. It receives so many more calls, which are executed or
# refused: otherwise those over its limit would wait in the queue of the broker, where nothing refuses them.
CALLS_OVER_LIMIT = 48
# How long a reply waits for the connection to be opened again.
REPLY_SECONDS = 1.0
# How long an outage of the database may last until a message that is not a call is only logged.
DEAD_LETTER_SECONDS = 30.0
# While calls are under way, one of them ends within this time. It is more than the longest deadline, that of an audit.
CALLS_SECONDS = 330.0
# How long a call waits for a locked row: usually, and after a lock timeout of the same method (LockTimeouts). Also the
# second of two calls that wait for a row (engine.SESSION_SETTINGS) must be refused before its caller gives up: many
# calls without a reply would open the circuit breaker of the caller.
LOCK_TIMEOUT, SHORT_LOCK_TIMEOUT = "1500ms", "200ms"
WAITED = "The call waited behind other calls for too long. Nothing was done."
INTERRUPTED = "The service was interrupted during the call; whether it acted is unknown."


class RpcServer(SharedExtension):
    """Consumes `rpc-<service>` for all of a service's methods."""

    listener = Listener()
    sender = Sender()
    dead_letters = DeadLetters()
    metrics = Metrics()
    no_ack = False

    def __init__(self) -> None:
        super().__init__()
        self.queue = ""
        self.prefetch = 1
        self._own_calls = 0
        self._shared = CallSlots(1)
        self._methods: dict[str, Rpc] = {}
        self._channel: Any = None
        self._received = LightQueue()  # at most the prefetch
        self._received_health = LightQueue()  # at most the prefetch of HealthCalls
        self._health_calls: Any = None
        self._acceptors: list[Any] = []
        self._accepting = 0
        self._closing: Any = None
        self._instruments: Any = None
        self._under_way = 0
        self._calls = Loop("rpc.calls", CALLS_SECONDS)

    def setup(self) -> None:
        """Subscribe."""
        text = "From the arrival of an executed call to its reply."
        self._instruments = CallInstruments(self.metrics, "rpc_served_seconds", text, "method")
        self.queue = f"rpc-{self.container.service_name}"
        shared = int(config.get("RPC_PREFETCH", 16))
        self._shared = CallSlots(shared)
        self.prefetch = shared + self._own_calls
        self.listener.subscribe(self, last=True)

    def register(self, method: "Rpc") -> None:
        """Make `method` callable. It stays callable while the service stops: calls that arrive then get a reply too."""
        self._methods[method.method_name] = method
        own = int(config.get(method.own_calls, 0)) if method.own_calls else 0
        if own:
            own += CALLS_OVER_LIMIT
            self._own_calls += own
            self.prefetch += own
            pool = self.container._worker_pool  # noqa: SLF001
            pool.resize(pool.size + own)
        if method.method_name == HEALTH and self._health_calls is None:
            self._health_calls = HealthCalls(self.container.service_name, self._receive_health)
            self.listener.subscribe(self._health_calls, last=True)
            pool = self.container._worker_pool  # noqa: SLF001
            pool.resize(pool.size + self._health_calls.prefetch)

    def start(self) -> None:
        """Start. Raises NotImplementedError if a method of the RPC interface is missing, or has no @rpc."""
        missing = missing_methods(self.container.service_cls, self._methods)
        if missing:
            problem = f"{self.container.service_name} does not serve: {', '.join(missing)}. Decorate each with @rpc."
            raise NotImplementedError(problem)
        if not self._acceptors:
            self._calls = Loop("rpc.calls", CALLS_SECONDS)
            self._calls.report_idle()
            loops_of(self.container).add(self._calls)
            self._acceptors = [
                self.container.spawn_managed_thread(
                    functools.partial(self._accept_all, name, received), identifier=name
                )
                for name, received in (("rpc.accept", self._received), ("rpc.accept_health", self._received_health))
            ]

    def finish(self) -> None:
        """Accept no more calls. The container waits at most STOP_SECONDS for the calls that are being executed."""
        if self._closing is None:
            self._closing = eventlet.spawn(self._end_workers)
        unsubscribing = (
            None if self._health_calls is None else eventlet.spawn(self.listener.unsubscribe, self._health_calls)
        )
        self.listener.unsubscribe(self)
        if unsubscribing is not None:
            unsubscribing.wait()
        deadline = time.monotonic() + STOP_SECONDS + 1.0  # then the workers that occupy the pool have been killed
        while self._has_calls_to_accept() and time.monotonic() < deadline:
            eventlet.sleep(0.01)

    def _has_calls_to_accept(self) -> bool:
        return bool(self._accepting) or not (self._received.empty() and self._received_health.empty())

    def stop(self) -> None:
        """Called after all workers have ended."""
        for greenlet in (*self._acceptors, self._closing):
            if greenlet is not None:
                greenlet.kill()

    def _end_workers(self) -> None:
        """Kill the workers that still run after STOP_SECONDS, and any that start after that."""
        eventlet.sleep(STOP_SECONDS)
        while True:
            self.container._kill_worker_threads()  # noqa: SLF001
            eventlet.sleep(0.5)

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue."""
        channel.queue_declare(self.queue, durable=True, auto_delete=False, arguments={"x-expires": QUEUE_EXPIRES_MS})
        channel.queue_bind(self.queue, RPC_EXCHANGE, f"{self.container.service_name}.*")
        self._channel = channel

    def on_disconnected(self) -> None:
        """Forget the channel: calls that arrived on it can no longer be acknowledged, and get no reply."""
        self._channel = None

    def on_message(self, message: amqp.Message) -> None:
        """Put one call into the queue."""
        self._received.put((self._channel, message, time.monotonic()))

    def _receive_health(self, channel: Any, message: amqp.Message) -> None:
        self._received_health.put((channel, message, time.monotonic()))

    def _accept_all(self, name: str, received: LightQueue) -> None:
        with loops_of(self.container).running(name) as loop:
            self._accept_until_killed(received, loop)

    def _accept_until_killed(self, received: LightQueue, loop: Loop) -> None:
        while True:
            loop.report_idle()
            channel, message, arrived = received.get()
            loop.report_progress()
            self._accepting += 1
            if self._is_received_twice(channel, message):
                ack(channel, message.delivery_tag)
            elif self._is_open(channel):  # otherwise the connection was lost: the call is delivered again, and refused
                self._accept(channel, message, arrived)
            self._accepting -= 1

    def _is_received_twice(self, channel: Any, message: amqp.Message) -> bool:
        """Tell whether the queue of the health checks has this message too."""
        if channel is not self._channel or self._health_calls is None or self._health_calls.channel is None:
            return False
        return bool(message.delivery_info.get("routing_key") == self._health_calls.routing_key)

    def _is_open(self, channel: Any) -> bool:
        return channel is not None and channel in (self._channel, self._health_calls and self._health_calls.channel)

    def _accept(self, channel: amqp.Channel, message: amqp.Message, arrived: float) -> None:
        """Start a worker for one call, or let it wait until one of the other calls ends."""
        budget = budget_of(message)
        try:
            entrypoint, args, kwargs = self._decode(message)
            if message.delivery_info.get("redelivered"):
                raise UpstreamTimeout(INTERRUPTED)
            spawn = functools.partial(
                self.container.spawn_worker,
                entrypoint,
                args,
                kwargs,
                context_data={"message": message, "arrived": arrived},
                handle_result=functools.partial(self._handle_result, channel, message, arrived),
            )
            seconds = None if budget is None else max(0.0, arrived + budget - time.monotonic())
            give_up = functools.partial(self._give_up, channel, message, arrived, entrypoint.method_name)
            self._start_call(entrypoint, spawn, seconds, give_up)
        except ContainerBeingKilled:
            return
        except ServiceError as error:
            self._end_call(channel, message, None, error)
        except Exception as error:  # noqa: BLE001  (no content of a message may end this greenlet)
            self.container.spawn_managed_thread(
                functools.partial(self._store_dead_letter, channel, message, error), identifier="rpc.dead_letter"
            )

    def _start_call(
        self, entrypoint: "Rpc", spawn: Callable[[], Any], seconds: float | None, give_up: Callable[[], object]
    ) -> None:
        """Start a worker, or let the call wait until another call ends, for at most `seconds`: then `give_up()`."""
        if self._under_way == 0:
            self._calls.report_progress()
        self._under_way += 1
        try:
            if entrypoint.own_calls or entrypoint.method_name == HEALTH:
                spawn()
            else:
                self._shared.run(spawn, self.container._worker_threads, seconds, give_up)  # noqa: SLF001
        except BaseException:
            self._count_end()
            raise

    def _count_end(self) -> None:
        """Report that one of the calls under way has ended."""
        self._under_way -= 1
        if self._under_way:
            self._calls.report_progress()
        else:
            self._calls.report_idle()

    def _decode(self, message: amqp.Message) -> "tuple[Rpc, list[Any], dict[str, Any]]":
        require_json(message)
        if not message.properties.get("reply_to"):
            problem = "a call without reply_to can get no reply"
            raise Undecodable(problem)
        args, kwargs = decode_call(message.body)
        method = message.delivery_info["routing_key"].rpartition(".")[2]
        require_routing(message, f"{self.container.service_name}.{method}")
        entrypoint = self._methods.get(method)
        if entrypoint is None:
            detail = f"{self.container.service_name} has no method {method}."
            raise BadCall(detail)
        entrypoint.check_arguments(args, kwargs)
        return entrypoint, args, kwargs

    def _handle_result(
        self, channel: Any, message: amqp.Message, began: float, ctx: Any, result: Any, exc_info: Any
    ) -> Any:
        error = exc_info[1] if exc_info else None
        self._count_end()
        self._end_call(channel, message, result, error)
        self._instruments.ended(time.monotonic() - began, error, ctx.entrypoint.method_name)
        return result, None

    def _give_up(self, channel: Any, message: amqp.Message, began: float, method: str) -> None:
        error = UpstreamTimeout(WAITED)
        self._count_end()
        self._end_call(channel, message, None, error)
        self._instruments.ended(time.monotonic() - began, error, method)

    def _end_call(self, channel: Any, message: amqp.Message, result: Any, error: BaseException | None) -> None:
        """Acknowledge a call and reply to it. Raises nothing: an exception would end the service and all its calls."""
        try:
            self._reply(channel, message, result, error)
        except Exception:
            log.exception("%s: the reply could not be sent", message.delivery_info["routing_key"])
            ack(channel, message.delivery_tag)

    def _reply(self, channel: Any, message: amqp.Message, result: Any, error: BaseException | None) -> None:
        if not self._is_open(channel) or channel.connection is None:
            return  # the connection is lost; the caller gets an error when the call is delivered again
        body = encode_reply(message.delivery_info["routing_key"], result, error)
        try:
            # The acknowledgement comes first, because the call was executed, even if the reply is lost.
            channel.send(channel.acknowledgement(message.delivery_tag))
            self._send(message, body)
        except (BrokerUnavailable, UpstreamTimeout, *CONNECTION_ERRORS, AttributeError) as failure:
            log.warning("a reply could not be sent: %s", failure)

    def _send(self, message: amqp.Message, body: str) -> None:
        reply_to = str(message.properties["reply_to"])
        # The routing key of a service, or direct reply-to. For direct reply-to RabbitMQ would close the connection.
        if "." in reply_to:
            log.warning("a call has the reply_to %r, which is not the address of a reply queue", reply_to)
            return
        correlation_id = str(message.properties.get("correlation_id", ""))
        channel = self.sender.channel(REPLY_SECONDS)
        reply = channel.message(body, RPC_EXCHANGE, reply_to, correlation_id=correlation_id)
        self.sender.send(channel, reply, REPLY_SECONDS)

    def _store_dead_letter(self, channel: Any, message: amqp.Message, error: Exception) -> None:
        """Store a message that is not a call. During an outage of the database, try again for DEAD_LETTER_SECONDS."""
        reason = str(error) if isinstance(error, Undecodable) else f"{type(error).__name__}: {error}"
        is_forged = isinstance(error, Forged)
        backoff, last_try = Backoff(), time.monotonic() + DEAD_LETTER_SECONDS
        while self._is_open(channel):  # otherwise it is delivered again
            try:
                self.dead_letters.store(self.queue, message, reason, attempts=0, with_body=False, is_forged=is_forged)
            except Exception as failure:
                pause = backoff.next_pause()
                if is_outage(failure) and time.monotonic() + pause < last_try:
                    eventlet.sleep(pause)
                    continue
                log.exception("a message that is not a call could not be stored as a dead letter: %s", reason)
            ack(channel, message.delivery_tag)
            return


class Rpc(Entrypoint):
    """One RPC method."""

    server = RpcServer()

    def __init__(self, own_calls: str = "") -> None:
        """`own_calls` names a setting: how many calls of this method may wait, in addition to RPC_PREFETCH calls."""
        super().__init__()
        self.own_calls = own_calls

    def setup(self) -> None:
        """Make the method callable."""
        self.server.register(self)

    def stop(self) -> None:
        """Accept no more calls."""
        self.server.finish()

    @functools.cached_property
    def _signature(self) -> WireSignature:
        signature: WireSignature = getattr(self.container.service_cls, self.method_name).wire_signature
        return signature

    def check_arguments(self, args: Any, kwargs: Any) -> None:
        """Raise BadCall if the arguments do not fit the method."""
        try:
            self._signature.bind(args, kwargs)
        except TypeError as error:
            detail = f"{self.container.service_name}.{self.method_name}: {error}."
            raise BadCall(detail) from None


def missing_methods(service: type, served: Container[str]) -> list[str]:
    """Return those methods of the inherited Protocols that are not in `served`, as `<Protocol>.<method>`."""
    interfaces = [kind for kind in service.__mro__ if getattr(kind, "_is_protocol", False) and kind is not Protocol]
    return [
        f"{interface.__name__}.{name}"
        for interface in interfaces
        for name in rpc_methods(interface)
        if name in vars(interface) and name not in served
    ]


P = ParamSpec("P")
R = TypeVar("R")


@overload
def rpc(method: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def rpc(
    *, transaction: bool = True, idempotent: bool = False, admin: bool = False, own_calls: str = ""
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def rpc(
    method: Callable[..., Any] | None = None,
    /,
    *,
    transaction: bool = True,
    idempotent: bool = False,
    admin: bool = False,
    own_calls: str = "",
) -> Callable[..., Any]:
    """Make a method callable by RPC. It gets typed arguments (see signature.py), and returns plain JSON.

    With `transaction`, the method runs in a transaction; without, it opens its own. With `idempotent`, calls with the
    same `idempotency_key` run it only once. With `admin`, the actor's role is checked before the other arguments are
    parsed. `own_calls` names a setting: as many calls of this method may wait for long, in addition to the
    RPC_PREFETCH calls of the other methods; the method itself refuses more of them. The caller receives a ServiceError
    as it was raised. Any other error is logged, and the caller receives InternalError.

    Only Nameko calls the decorated method, with the arguments of the wire. A service must not call its own RPC methods.
    """
    if method is None:
        return functools.partial(
            _entrypoint, transaction=transaction, idempotent=idempotent, admin=admin, own_calls=own_calls
        )
    return _entrypoint(method, transaction=transaction, idempotent=idempotent, admin=admin, own_calls=own_calls)


def _entrypoint(
    method: Callable[..., Any], *, transaction: bool, idempotent: bool, admin: bool, own_calls: str
) -> Callable[..., Any]:
    signature = WireSignature(method)

    def call(self: Any, arguments: dict[str, Any]) -> Any:
        if admin:
            Actor.of(arguments.get("actor")).require_admin()
        return signature.call(method, self, arguments)

    def call_in_transaction(self: Any, arguments: dict[str, Any]) -> Any:
        key = arguments.get("idempotency_key") if idempotent else None
        # The fingerprint is computed from the wire arguments, so that keys stored by an older release stay valid.
        stated = {name: value for name, value in arguments.items() if value is not None}  # null means absent
        return run_once(self.work, method.__name__, key, stated, lambda: call(self, arguments))

    run = call_in_transaction if transaction else call
    lock_timeouts = LockTimeouts(LOCK_TIMEOUT, SHORT_LOCK_TIMEOUT)

    @functools.wraps(method)
    def entry(self: Any, /, *args: Any, **kwargs: Any) -> Any:  # `/`: a caller may send an argument named `self`
        if (work := getattr(self, "work", None)) is not None:
            work.lock_timeouts = lock_timeouts
        try:
            return run(self, signature.bind(args, kwargs))
        except ServiceError:
            raise
        except (Exception, *INTERRUPTIONS) as error:
            if is_outage(error) or is_statement_timeout(error):
                raise ServiceUnavailable(retry_after=1) from error
            if isinstance(error, GreenletExit):  # the service stops, or is being killed
                raise UpstreamTimeout(INTERRUPTED) from error
            log.exception("%s.%s failed", self.name, method.__name__)
            raise InternalError from error

    entry.wire_signature = signature  # type: ignore[attr-defined]
    register_entrypoint(entry, Rpc(own_calls))
    return entry
