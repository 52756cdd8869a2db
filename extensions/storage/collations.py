"""Collations: which one a text column has, and whether a library has changed the order of an index since its creation.

Keys (e-mail addresses, skus, idempotency keys) have the collation C, the order of bytes, which no upgrade of a library
changes. Names that people sort have a collation of ICU, which does not depend on the C library. PostgreSQL records the
version of ICU when a collation is created.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

KEY_COLLATION = "C"
DEFAULT_COLLATION = "default"

_OUTDATED = text(
    """
    SELECT format('collation %s', c.oid::regcollation) AS name,
           format('ALTER COLLATION %s REFRESH VERSION', c.oid::regcollation) AS refresh,
           collversion AS created, pg_collation_actual_version(c.oid) AS current
    FROM pg_collation AS c
    WHERE collprovider <> 'd' AND collversion IS DISTINCT FROM pg_collation_actual_version(c.oid)
      AND c.oid IN (SELECT attcollation FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
                    WHERE relnamespace = 'public'::regnamespace)
    UNION ALL
    SELECT format('locale of the database %I', datname), format('ALTER DATABASE %I REFRESH COLLATION VERSION', datname),
           datcollversion, pg_database_collation_actual_version(oid)
    FROM pg_database
    WHERE datname = current_database() AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)
    """
)
_DATABASE = text("SELECT quote_ident(current_database())")
_KNOWS_VERSIONS = text("SELECT current_setting('server_version_num')::integer >= 150000")


def set_collation(op: Any, table: str, columns: Sequence[str], collation: str = KEY_COLLATION) -> None:
    """Give text columns a collation, in a migration. The table is not written anew; its indexes on them are.

    A million rows take about a second, in which the table is locked.
    """
    changes = ", ".join(f'ALTER COLUMN {column} TYPE text COLLATE "{collation}"' for column in columns)
    op.execute(text(f"ALTER TABLE {table} {changes}"))


def warnings_about(connection: Connection) -> list[str]:
    """Return a sentence about each collation of this database whose library has another version than at its creation.

    Indexes on such columns may be out of order: rows are not found, and unique values can be stored twice.
    """
    if not connection.scalar(_KNOWS_VERSIONS):  # PostgreSQL 14 knows no version of a database
        return []
    database = connection.scalar(_DATABASE)
    return [
        f"the {name} was created with version {created} of its library, which is {current} now. Indexes may be out of "
        f"order. As the owner: REINDEX DATABASE {database}; then {refresh}"
        for name, refresh, created, current in connection.execute(_OUTDATED)
    ]
