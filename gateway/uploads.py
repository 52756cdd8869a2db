"""Passes the file of an import on to a service in chunks: the gateway keeps one of them, never the file."""

import codecs
import hashlib
import time
from collections.abc import Iterator
from typing import Any, Literal
from uuid import UUID

import eventlet
from nameko import config

from contracts.base import Json, Replayed
from contracts.errors import IdempotencyKeyReused, ValidationFailed
from contracts.imports import (
    CSV,
    JSON_LINES,
    OVER,
    BeginImport,
    EndOfImport,
    ImportChunk,
    ImportingRpc,
    ImportNotFound,
    ImportOptions,
    ImportView,
)
from extensions.http.message.request import Access, HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.declaration import EVENT_STREAM

MAX_BYTES = 64 * 1024 * 1024
# Of a file that arrives slowly. A whole request may take UPLOAD_SECONDS + RESULT_SECONDS.
UPLOAD_SECONDS, RESULT_SECONDS = 300.0, 4.0
# So many letters are sent in one call; a piece of the body has fewer.
CHUNK_LETTERS = 128 * 1024
STREAM_EXAMPLE = """\
retry: 2000

:

id: 3-1763803800000000
data: {"id":"0192d4e1-7c1b-7000-8000-000000000001","status":"MERGING","mode":"skip_bad","staged":100000,\
"merged":2500,"created":2500,"updated":0,"unchanged":0,"failed":3,"updated_at":"2025-11-22T09:30:00.000000Z"}

event: end
data: {"reason":"complete"}

"""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.25
# The declarations of the routes of a service that takes imports.
IMPORT: dict[str, Any] = {
    "access": Access.ADMIN,
    "query": ImportOptions,
    "consumes": (CSV, JSON_LINES),
    "seconds": UPLOAD_SECONDS + 2 * RESULT_SECONDS,
    "max_concurrent": 4,
    "response": ImportView,
    "other_statuses": (202,),
    "idempotent": True,
}
GET_IMPORT: dict[str, Any] = {"access": Access.ADMIN, "response": ImportView, "errors": (ImportNotFound,)}
FOLLOW_IMPORT: dict[str, Any] = {
    "access": Access.ADMIN,
    "produces": EVENT_STREAM,
    "example": STREAM_EXAMPLE,
    "errors": (ImportNotFound,),
}


def import_file(request: HttpRequest[None, ImportOptions], service: ImportingRpc, location: str) -> Response:
    """Pass the file on, and wait RESULT_SECONDS for the result: 200 with it, or 202 with the import so far.

    `location` is the path of an import, with its id as `{id}`.
    """
    file_format: Literal["csv", "json_lines"] = "csv" if request.content_type == CSV else "json_lines"
    wanted = BeginImport(mode=request.query.mode, format=file_format)
    begun = service.begin_import(wanted, actor=request.actor, idempotency_key=request.idempotency_key)
    import_id, known = UUID(begun["id"]), begun["sha256"]
    digest, chunks = hashlib.sha256(f"{wanted.mode}\n{wanted.format}\n".encode()), 0
    for number, text in enumerate(_chunks(request)):
        digest.update(text.encode())
        if known is None:
            service.add_import_chunk(import_id, ImportChunk(number=number, text=text), actor=request.actor)
        chunks = number + 1
    if known is not None and known != digest.hexdigest():
        raise IdempotencyKeyReused
    if known is None:
        service.finish_import(import_id, EndOfImport(chunks=chunks, sha256=digest.hexdigest()), actor=request.actor)
    found = _result(request, service, import_id)
    body = Replayed(found) if known is not None else found
    if found["status"] in OVER:
        return Response(body, status=200)
    return Response(body, status=202, headers={"Location": location.format(id=found["id"])})


def _chunks(request: HttpRequest) -> Iterator[str]:
    """Yield the text of the body, without a byte order mark. Raises ValidationFailed if it is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    limit = int(config.get("IMPORT_MAX_BYTES", MAX_BYTES))
    text, end = "", time.monotonic() + UPLOAD_SECONDS
    try:
        for piece in request.pieces(limit, end):
            text += decoder.decode(piece)
            if len(text) >= CHUNK_LETTERS:
                yield text
                text = ""
        text += decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise ValidationFailed.field("body", "is not UTF-8") from None
    if text:
        yield text


def _result(request: HttpRequest, service: ImportingRpc, import_id: UUID) -> Json[ImportView]:
    """Return the import when it is over, or as it is after RESULT_SECONDS."""
    end, pause = time.monotonic() + RESULT_SECONDS, FIRST_PAUSE_SECONDS
    while True:
        found = service.get_import(import_id, actor=request.actor)
        if found["status"] in OVER or time.monotonic() + pause > end:
            return found
        eventlet.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
