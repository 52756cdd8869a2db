"""RPC calls to other services. Each has a deadline, and fails at once where no process of the service runs."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from functools import cache
from secrets import token_hex
from typing import Any, get_type_hints
from uuid import uuid4

import amqp
import eventlet
from eventlet.event import Event as Signal
from nameko import config
from nameko.extensions import DependencyProvider, SharedExtension

from contracts.base import Replayed
from contracts.call_permissions import require_allowed
from contracts.errors import InternalError, ServiceError, ServiceUnavailable, UpstreamTimeout
from contracts.services import Services
from extensions.messaging.connection import BrokerUnavailable, broker_errors, has_own_user
from extensions.messaging.listener import Listener
from extensions.messaging.sender import Sender
from extensions.messaging.topology import RPC_EXCHANGE, reply_queue
from extensions.observability.instruments import CallInstruments
from extensions.observability.metrics import Metrics
from extensions.observability.traces import current_trace
from extensions.rpc.service_guard import NoReply, ServiceGuards
from extensions.rpc.signature import WireSignature, rpc_methods

log = logging.getLogger(__name__)

MAX_PENDING = 1000
FIRST_CONNECTION_SECONDS = 1.0
# At the beginning of an alarm of the broker, calls under way wait so long for results that were sent before.
BLOCKED_GRACE_SECONDS = 0.5

Call = Callable[[str, str, tuple[Any, ...], dict[str, Any], float], Any]
"""Makes a call: (service, method, positional arguments, named arguments, seconds that it may take). All plain JSON."""

_encode = json.JSONEncoder(default=str).encode


class PendingCalls(SharedExtension):
    """The calls in flight, and the queue for their replies, which exists as long as the connection.

    RabbitMQ's direct reply-to is not used: with it, every service would need permission to write to any queue.
    """

    listener = Listener()
    sender = Sender()
    metrics = Metrics()
    guards = ServiceGuards()
    prefetch = 0
    no_ack = True

    def __init__(self) -> None:
        super().__init__()
        self.queue = ""
        self._address = ""
        self._pending: dict[str, Signal] = {}
        self._is_restricted = False
        self._instruments = _instruments(self.metrics)

    def setup(self) -> None:
        """Subscribe to replies."""
        self._is_restricted = has_own_user(self.container.service_name)
        self._instruments = _instruments(self.metrics)  # now that `metrics` belongs to the container
        self.listener.subscribe(self)
        self.sender.subscribe(self._on_return, self._on_blocked)

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue, bound by an address that cannot be guessed."""
        self._address = str(uuid4())
        self.queue = reply_queue(self.container.service_name, self._address)
        channel.queue_declare(self.queue, durable=False, exclusive=True, auto_delete=True)
        channel.queue_bind(self.queue, RPC_EXCHANGE, self._address)

    def on_disconnected(self) -> None:
        """Fail all calls under way: their replies would have come over the lost connection."""
        _fail(
            self._pending.values(),
            UpstreamTimeout("The connection to the message broker was lost before the reply arrived."),
        )

    def on_message(self, message: amqp.Message) -> None:
        """Hand one reply to its caller."""
        waiting = self._pending.get(str(message.properties.get("correlation_id")))
        if waiting is not None and not waiting.ready():
            waiting.send(message.body)

    def call(self, service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float) -> Any:
        """Call and wait at most `timeout` seconds. Returns the result in plain JSON.

        Raises the callee's ServiceError, ServiceUnavailable where no service got the call (service_guard.py refuses
        some at once; BrokerBlocked during an alarm of the broker), UpstreamTimeout, and CallNotAllowed where
        contracts/call_permissions.py does not allow the call.
        """
        began = time.monotonic()
        try:
            with self.guards.of_call(service, method).call(method, timeout):
                result = self._call(service, method, args, kwargs, began + timeout)
        except BaseException as error:
            self._instruments.ended(time.monotonic() - began, error, service, method)
            raise
        self._instruments.ended(time.monotonic() - began, None, service, method)
        return result

    def _call(self, service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], until: float) -> Any:
        """Call, and wait until then (time.monotonic()), or until the deadline of the request if that is sooner."""
        if self._is_restricted:  # the broker would refuse the call and close the channel of all calls
            require_allowed(self.container.service_name, service, method)
        if len(self._pending) >= MAX_PENDING:
            raise ServiceUnavailable(retry_after=1)
        trace = current_trace()

        def remaining(limit: float = math.inf) -> float:
            return min(limit, max(0.0, trace.remaining(until - time.monotonic())))

        if remaining() <= 0:
            raise UpstreamTimeout
        self.listener.await_connection(remaining(FIRST_CONNECTION_SECONDS))
        if not self.listener.is_consuming(self):  # the broker refuses calls of a client without a reply queue
            raise BrokerUnavailable
        channel = self.sender.channel(remaining(FIRST_CONNECTION_SECONDS))
        call_id, waiting = token_hex(16), Signal()
        self._pending[call_id] = waiting
        try:
            body = _encode({"args": args, "kwargs": kwargs})
            with broker_errors():
                request = channel.message(
                    body,
                    RPC_EXCHANGE,
                    f"{service}.{method}",
                    mandatory=True,
                    headers=trace.call_headers,
                    correlation_id=call_id,
                    reply_to=self._address,
                    expiration=str(int(remaining() * 1000)),
                )
            self.sender.send(channel, request, remaining())
            reply = waiting.wait(timeout=remaining())
        finally:
            self._pending.pop(call_id, None)
        return _result(reply, service)

    def _on_return(self, _error: Exception, _exchange: str, routing_key: str, message: amqp.Message) -> None:
        waiting = self._pending.get(str(message.properties.get("correlation_id")))
        if waiting is not None and not waiting.ready():
            service = routing_key.partition(".")[0]
            waiting.send(ServiceUnavailable(f"The {service} service is not running. Try again shortly.", retry_after=2))

    def _on_blocked(self) -> None:
        """Fail the calls under way soon: no service can send a result during an alarm."""
        eventlet.spawn_after(BLOCKED_GRACE_SECONDS, self._fail_blocked, list(self._pending.values()))

    def _fail_blocked(self, calls: list[Signal]) -> None:
        if self.sender.is_blocked:
            _fail(calls, UpstreamTimeout("The message broker takes no messages; whether the call is made is unknown."))


def _fail(calls: Iterable[Signal], error: ServiceError) -> None:
    for waiting in list(calls):
        if not waiting.ready():
            waiting.send(error)


def _instruments(metrics: Metrics) -> CallInstruments:
    return CallInstruments(metrics, "rpc_called_seconds", "From a call to its reply.", "service", "method")


def _result(reply: bytes | ServiceError | None, service: str) -> Any:
    if reply is None:
        detail = f"The {service} service did not respond in time."
        raise NoReply(detail)
    if isinstance(reply, ServiceError):
        raise reply
    try:
        envelope = json.loads(reply)
        error = envelope.get("error")
        # Replies of plain Nameko services have neither `problem` nor `replayed`.
        failure = ServiceError.from_wire(error.get("problem") or {"name": "InternalError"}) if error else None
        result = Replayed(envelope["result"]) if envelope.get("replayed") else envelope["result"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as invalid:
        log.error("a reply of %s is no result of a call: %r", service, invalid)  # noqa: TRY400
        raise InternalError from invalid
    if failure is not None:
        raise failure
    return result


class RemoteServices(Services):
    """The type of `self.services`: every service of a registry, with the methods of its RPC interface."""

    def __init__(self, call: Call, timeout: float, registry: type = Services) -> None:
        """`call` makes a call of at most `timeout` seconds. `registry` is a class like contracts.services.Services."""
        self._call, self._registry = call, registry
        for name, remote in _remotes(registry).items():
            setattr(self, name, remote(name, call, timeout))

    def within(self, seconds: float) -> "RemoteServices":
        """Return the same services; each call may take `seconds`."""
        return RemoteServices(self._call, seconds, self._registry)


class RpcClient(DependencyProvider):
    """Gives a service access to the other services: `services: Services = RpcClient()`."""

    calls = PendingCalls()

    def __init__(self, registry: type = Services) -> None:
        """The benchmark passes its own `registry`, with other services."""
        super().__init__()
        self._registry = registry

    def setup(self) -> None:
        """Read how long a call may take."""
        self._services = RemoteServices(
            self.calls.call, float(config.get("RPC_TIMEOUT_SECONDS", 4)), registry=self._registry
        )

    def get_dependency(self, worker_ctx: Any) -> Services:
        """Return the callable services; all workers share them."""
        return self._services


@cache
def _remotes(registry: type) -> dict[str, type]:
    """Return for each service of a registry a class with the methods of its interface, which call it."""
    return {name: _remote(interface) for name, interface in get_type_hints(registry).items()}


def _remote(interface: type) -> type:
    methods = {name: _caller(name, WireSignature(method)) for name, method in rpc_methods(interface).items()}
    return type(interface.__name__, (_Remote,), methods)


class _Remote:
    """A remote service: subclasses add the methods of its RPC interface."""

    def __init__(self, service: str, call: Call, timeout: float) -> None:
        self._service, self._call, self._timeout = service, call, timeout


def _caller(name: str, signature: WireSignature) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._service, name, (), signature.encode(args, kwargs), self._timeout)

    return call
