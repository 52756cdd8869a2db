"""The tables of bulk imports: the imports, the chunks of their files, and the valid rows that wait to be merged."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, MetaData, Table
from sqlalchemy.dialects.postgresql import JSONB

from extensions.storage.collations import KEY_COLLATION
from extensions.storage.tables import DELETABLE

IMPORTS, CHUNKS, ROWS = "imports", "import_chunks", "import_rows"
KEY = sa.Text(collation=KEY_COLLATION)


def _columns() -> dict[str, list[Any]]:
    now = sa.func.clock_timestamp()
    time = sa.DateTime(timezone=True)
    count = [Column(name, sa.BigInteger, nullable=False, server_default="0") for name in COUNTS]
    parent = f"{IMPORTS}.id"
    return {
        IMPORTS: [
            Column("id", sa.Uuid, primary_key=True),
            Column("actor", KEY, nullable=False),
            Column("key", KEY),
            Column("sha256", sa.Text),
            Column("mode", sa.Text, nullable=False),
            Column("format", sa.Text, nullable=False),
            Column("status", sa.Text, nullable=False),
            Column("attempts", sa.Integer, nullable=False, server_default="0"),
            *count,
            Column("errors", JSONB, nullable=False, server_default="[]"),
            Column("headers", JSONB, nullable=False),
            Column("lease_until", time),
            Column("created_at", time, nullable=False, server_default=now),
            Column("updated_at", time, nullable=False, server_default=now),
        ],
        CHUNKS: [
            Column("import_id", ForeignKey(parent, ondelete="CASCADE"), primary_key=True),
            Column("number", sa.Integer, primary_key=True, autoincrement=False),
            Column("text", sa.Text, nullable=False),
        ],
        ROWS: [
            Column("import_id", ForeignKey(parent, ondelete="CASCADE"), primary_key=True),
            Column("line", sa.BigInteger, primary_key=True, autoincrement=False),
            Column("key", KEY, nullable=False),
            Column("data", JSONB, nullable=False),
        ],
    }


COUNTS = ("staged", "merged", "created", "updated", "unchanged", "failed")


def add_import_tables(metadata: MetaData) -> None:
    """Add the tables to the metadata of a service."""
    columns = _columns()
    table = Table(IMPORTS, metadata, *columns[IMPORTS], info=DELETABLE)
    Index("uq_imports_actor_key", table.c.actor, table.c.key, unique=True)
    Index(None, table.c.created_at)
    Table(CHUNKS, metadata, *columns[CHUNKS], info=DELETABLE)
    rows = Table(ROWS, metadata, *columns[ROWS], info=DELETABLE)
    Index(None, rows.c.import_id, rows.c.key)


def create_import_tables(op: Any) -> None:
    """Create the tables. Part of a revision."""
    metadata = MetaData()
    for name, columns in _columns().items():
        Table(name, metadata, *columns)
    for table in metadata.sorted_tables:
        table.primary_key.name = f"pk_{table.name}"
        for foreign in table.foreign_key_constraints:
            foreign.name = f"fk_{table.name}_import_id"
    metadata.create_all(op.get_bind())
    op.create_index("uq_imports_actor_key", IMPORTS, ["actor", "key"], unique=True)
    op.create_index("ix_imports_created_at", IMPORTS, ["created_at"])
    op.create_index("ix_import_rows_import_id_key", ROWS, ["import_id", "key"])


def drop_import_tables(op: Any) -> None:
    """Undo create_import_tables."""
    for name in (ROWS, CHUNKS, IMPORTS):
        op.drop_table(name)
