"""The RPC methods and the timers of a service that takes imports (contracts/imports.py)."""

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from nameko import config
from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json
from contracts.imports import (
    BeginImport,
    BegunImport,
    EndOfImport,
    ImportChunk,
    ImportingRpc,
    ImportLookup,
    ImportsProgress,
    ImportView,
)
from extensions.rpc.server import rpc
from extensions.runtime.addresses import database_url
from extensions.storage.imports import SWEEP_SECONDS, Claimed, Imports, Merged
from extensions.storage.periodic import periodic


class Importing(ImportingRpc):
    """What a service that takes imports inherits. It states what a row is, and how rows are merged."""

    name: str
    work: Any  # the service's own: work: UnitOfWork = Work(Base)
    row_model: ClassVar[str]
    """The class of a row, as `module:Class`."""
    row_keys: ClassVar[tuple[str, ...]]
    """The fields of which one identifies a row."""
    merges_at_once: ClassVar[bool] = False
    """Whether all rows are merged in one transaction, unless bad ones are to be skipped."""

    def merge_rows(self, session: Session, claimed: Claimed, rows: Sequence[Any]) -> Merged:
        """Merge staged rows, each with `line`, `key` and `data`, in the transaction of the session."""
        raise NotImplementedError

    @rpc(admin=True)
    def begin_import(
        self, wanted: BeginImport, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[BegunImport]:
        return self._imports.begin(wanted, actor, idempotency_key)

    @rpc(admin=True)
    def add_import_chunk(self, import_id: UUID, chunk: ImportChunk, *, actor: Actor = OPERATOR) -> None:
        self._imports.add_chunk(import_id, chunk)

    @rpc(admin=True)
    def finish_import(self, import_id: UUID, end: EndOfImport, *, actor: Actor = OPERATOR) -> Json[ImportView]:
        self.work.trigger(self.run_imports)
        return self._imports.finish(import_id, end)

    @rpc(admin=True)
    def get_import(self, import_id: UUID, *, actor: Actor = OPERATOR) -> Json[ImportView]:
        return self._imports.get(import_id)

    @rpc(admin=True)
    def get_imports(self, wanted: ImportLookup, *, actor: Actor = OPERATOR) -> Json[ImportsProgress]:
        return self._imports.get_progress(wanted)

    @periodic(seconds=5, transaction=False)
    def run_imports(self) -> None:
        """Work through the queued imports."""
        self._imports.work_on(self.merge_rows, database_url(config, self.name), at_once=self.merges_at_once)

    @periodic(seconds=SWEEP_SECONDS)
    def sweep_imports(self) -> None:
        """Delete imports that nobody finished, and old ones."""
        self._imports.sweep()

    @property
    def _imports(self) -> Imports:
        return Imports(self.work, self.row_model, self.row_keys)
