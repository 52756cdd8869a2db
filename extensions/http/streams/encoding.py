"""The format of server-sent events (WHATWG HTML, section 9.2)."""

COMMENT = b":\n\n"
"""Tells the client, and the proxies between, that the connection is alive. Clients ignore it."""


def encode(data: str, *, event: str = "", event_id: str = "") -> bytes:
    """Return one event. A client dispatches one without `event` as `message`."""
    head = (f"event: {event}\n" if event else "") + (f"id: {event_id}\n" if event_id else "")
    # A carriage return would end a line as well.
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return (head + "".join(f"data: {line}\n" for line in lines) + "\n").encode()


def position_only(event_id: str) -> bytes:
    """Return an id without data: the client remembers it for Last-Event-ID, and dispatches nothing."""
    return f"id: {event_id}\n\n".encode()


def opening(retry_ms: int) -> bytes:
    """Return the first bytes of a stream: the pause before the client connects again, in milliseconds."""
    return f"retry: {retry_ms}\n\n".encode()
