"""Gives the gateway its streams: `streams: Live = LiveProvider()`. Nothing runs before the first stream is opened."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal
from uuid import UUID

from nameko.extensions import DependencyProvider

from contracts.events import EVENTS
from contracts.imports import ImportingRpc
from contracts.services import Services
from extensions.http.message.request import HttpRequest
from extensions.http.routing.streams import StreamResponse, Streams
from extensions.http.streams.encoding import position_only
from extensions.http.streams.stream import Stream
from extensions.messaging.event_log_reader import EventLogReader, LogEntry
from extensions.runtime.progress import loops_of
from gateway.live import events, imports, notifications, orders
from gateway.live.watch import Watch, show


class Live:
    """Opens the streams of one gateway process."""

    def __init__(self, streams: Streams, reader: EventLogReader, container: Any) -> None:
        self._streams, self._reader, self._container = streams, reader, container
        self._services: Services | None = None
        self._orders = Watch("orders", lambda positions: orders.fetch(self._required(), positions), orders.BATCH)
        self._notifications = Watch(
            "notifications",
            lambda positions: notifications.fetch(self._required(), positions),
            notifications.BATCH,
        )
        self._imports = {
            service: Watch(
                f"{service}_imports",
                lambda positions, service=service: imports.fetch(getattr(self._required(), service), positions),  # type: ignore[misc]
                imports.BATCH,
                imports.RECHECK_SECONDS,
            )
            for service in ("catalog", "inventory")
        }
        self._feed = events.EventFeed(reader, container.spawn_managed_thread)
        self._runs: dict[str, Any] = {}
        reader.subscribe(self._on_entries, self._on_connected)

    def order(self, services: Services, request: HttpRequest, order_id: UUID) -> StreamResponse:
        """Open the stream of an order. Raises OrderNotFound, TooManyStreams, TooManyAtOnce, ValidationFailed."""
        seen = orders.position_of(request.headers.get("last-event-id"))
        self._services = services

        def begin(stream: Stream) -> None:
            timeline = services.orders.get_timeline(order_id, actor=request.actor)
            stream.position = seen
            stream.needs_admin = not orders.is_owner(timeline, request.user_id)
            show(stream, orders.items_of(order_id, timeline))
            self._orders.add(order_id, stream)
            self._run_watch(self._orders)

        return self._open("order", request, begin)

    def notifications(self, services: Services, request: HttpRequest) -> StreamResponse:
        """Open the stream of the caller's notifications. Raises TooManyStreams, TooManyAtOnce, ValidationFailed."""
        after = notifications.position_of(request.headers.get("last-event-id"))
        self._services = services

        def begin(stream: Stream) -> None:
            stream.position = after or notifications.present(services)
            if after is None:
                stream.send(position_only(str(stream.position)))
            self._notifications.add(request.user_id, stream)
            self._run_watch(self._notifications)

        return self._open("notifications", request, begin)

    def imported(
        self, services: Services, request: HttpRequest, service: Literal["catalog", "inventory"], import_id: UUID
    ) -> StreamResponse:
        """Open the stream of an import of a service.

        Raises ImportNotFound, TooManyStreams, TooManyAtOnce, ValidationFailed.
        """
        seen = imports.position_of(request.headers.get("last-event-id"))
        self._services = services
        importing: ImportingRpc = getattr(services, service)

        def begin(stream: Stream) -> None:
            found = importing.get_import(import_id, actor=request.actor)
            stream.position = seen
            show(stream, [imports.item_of(found)])
            if not stream.ended:
                self._imports[service].add(import_id, stream)
                self._run_watch(self._imports[service])

        return self._open("import", request, begin, needs_admin=True, reads_log=False)

    def events(self, request: HttpRequest) -> StreamResponse:
        """Open the stream of all events. Raises TooManyStreams, TooManyAtOnce, ValidationFailed."""
        after = events.position_of(request.headers.get("last-event-id"))
        return self._open("admin", request, lambda stream: self._feed.add(stream, after), needs_admin=True)

    def _open(
        self,
        kind: str,
        request: HttpRequest,
        begin: Callable[[Stream], None],
        *,
        needs_admin: bool = False,
        reads_log: bool = True,
    ) -> StreamResponse:
        stream = self._streams.create(kind, request, needs_admin=needs_admin)
        try:
            if reads_log:
                self._reader.enter()
                stream.on_end(lambda _stream, _reason: self._reader.leave())
            begin(stream)
        except BaseException:
            stream.end("client")
            raise
        return StreamResponse(stream)

    def _run_watch(self, watch: Watch) -> None:
        name = f"live.{watch.name}"
        if name not in self._runs:
            spawn = self._container.spawn_managed_thread
            self._runs[name] = spawn(partial(self._run, name, watch), identifier=name)

    def stop(self) -> None:
        """End the greenlets of the watches."""
        for greenlet in self._runs.values():
            greenlet.kill()

    def _run(self, name: str, watch: Watch) -> None:
        with loops_of(self._container).running(name) as loop:
            watch.run(loop)

    def _required(self) -> Services:
        assert self._services is not None
        return self._services

    def _on_connected(self) -> None:
        self._orders.expect_all()
        self._notifications.expect_all()

    def _on_entries(self, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            self._orders.expect(entry.order_id, entry.event_id)
            kind = EVENTS.get(entry.event)
            if entry.user_id is not None and kind is not None and "notifications" in kind.consumers:
                subject = notifications.subject_of(entry.event, entry.order_id, entry.user_id)
                self._notifications.expect(entry.user_id, subject)
        self._feed.on_entries(entries)


class LiveProvider(DependencyProvider):
    """Makes the Live of a process."""

    streams = Streams()
    reader = EventLogReader()

    def setup(self) -> None:
        """Make it."""
        self._live = Live(self.streams, self.reader, self.container)

    def stop(self) -> None:
        """End what runs for streams."""
        self._live.stop()

    def get_dependency(self, _worker_ctx: Any) -> Live:
        """Return it; all workers share it."""
        return self._live
