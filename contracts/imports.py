"""Bulk imports: what every service that takes one offers. A file arrives in chunks, then the service works on it."""

from typing import Annotated, Literal, Protocol
from uuid import UUID

from pydantic import Field

from contracts.base import OPERATOR, Actor, Id, Instant, Json, Request, View, at_most
from contracts.errors import InvalidState, NotFound
from contracts.operations import OperatedRpc

CSV, JSON_LINES = "text/csv", "application/x-ndjson"
MAX_CHUNK_LETTERS = 256 * 1024
MAX_ERRORS = 1_000
"""The most errors that an import lists. `failed` counts all rows."""
MAX_WATCHED = 100
"""The most imports whose progress one call returns."""

Mode = Literal["all_or_nothing", "skip_bad"]
Status = Literal["RECEIVING", "QUEUED", "VALIDATING", "MERGING", "DONE", "REJECTED", "FAILED"]
OVER = frozenset({"DONE", "REJECTED", "FAILED"})
"""The statuses of an import that has ended."""


class ImportOptions(Request):
    """The query of an import.

    With `all_or_nothing` nothing is changed if one row is bad; `skip_bad` leaves bad rows out.
    """

    mode: Mode = "all_or_nothing"


class BeginImport(ImportOptions):
    """An import whose file is to come."""

    format: Literal["csv", "json_lines"]


class ImportChunk(Request):
    """A part of the file. The parts are numbered from 0; a repeated one replaces the first."""

    number: Annotated[int, Field(strict=True, ge=0, le=100_000)]
    text: Annotated[str, Field(max_length=MAX_CHUNK_LETTERS)]


class EndOfImport(Request):
    """The end of the file: how many chunks it has, and the hash of its content and options."""

    chunks: Annotated[int, Field(strict=True, ge=0, le=100_001)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ImportLookup(Request):
    """The imports whose progress is asked for."""

    import_ids: Annotated[tuple[Id, ...], Field(min_length=1, max_length=MAX_WATCHED), at_most(MAX_WATCHED)]


class RowError(View):
    """What is wrong with a row. `line` is the line of the file in which the row begins, the first is 1."""

    line: int
    field: str
    message: str


class ImportProgress(View):
    """An import and its progress."""

    id: UUID
    status: Status
    mode: Mode
    staged: int
    merged: int
    created: int
    updated: int
    unchanged: int
    failed: int
    updated_at: Instant


class ImportsProgress(View):
    """The progress of several imports. One that does not exist is left out."""

    items: tuple[ImportProgress, ...]


class ImportView(ImportProgress):
    """An import, its progress and its result.

    The status is QUEUED, VALIDATING or MERGING while the service works on it. In the end it is DONE; or REJECTED if
    nothing was changed because of bad rows; or FAILED if the service could not process it.
    """

    errors: tuple[RowError, ...]
    created_at: Instant


class BegunImport(View):
    """A begun import. `sha256` is that of the file if the import has had this key before, and has the whole file."""

    id: UUID
    sha256: str | None


class ImportingRpc(OperatedRpc, Protocol):
    """RPC methods of a service that takes imports, all for administrators."""

    def begin_import(
        self, wanted: BeginImport, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[BegunImport]:
        """Begin an import, or find that with this key. Raises IdempotencyKeyInUse while its file still arrives."""

    def add_import_chunk(self, import_id: UUID, chunk: ImportChunk, *, actor: Actor = OPERATOR) -> None:
        """Store a part of the file. Raises ImportNotFound, ImportComplete."""

    def finish_import(self, import_id: UUID, end: EndOfImport, *, actor: Actor = OPERATOR) -> Json[ImportView]:
        """Start to work on the file. Raises ImportNotFound, ImportComplete."""

    def get_import(self, import_id: UUID, *, actor: Actor = OPERATOR) -> Json[ImportView]:
        """Return an import. Raises ImportNotFound."""

    def get_imports(self, wanted: ImportLookup, *, actor: Actor = OPERATOR) -> Json[ImportsProgress]:
        """Return the progress of several imports."""


class ImportNotFound(NotFound):
    """There is no such import, or it was deleted: finished ones after two days, and files that never ended sooner."""

    code, status, detail = "IMPORT_NOT_FOUND", 404, "There is no import with this id."


class ImportComplete(InvalidState):
    """The file of the import has arrived already."""

    detail = "The file of this import has arrived already."
