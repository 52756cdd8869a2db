"""Upgrades the services' databases to their newest revision: `python -m deploy.migrate [users orders ...]`.

`python -m deploy.alembic` runs any other command of Alembic on one service.

It may run several times at once (two containers, two terminals): extensions/storage/migrations.py takes a lock.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from psycopg2.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError

from deploy.config_file import ROOT
from deploy.databases import Database, configured
from extensions.storage import collations
from extensions.storage.migrations import LOCK_TIMEOUT, StillRunning, TablesLocked

CONNECT_SECONDS = 60.0  # how long to wait for a database that is starting


class MigrationError(Exception):
    """A database could not be reached or migrated; the text says which and why."""


def migrate(services: Sequence[str] = (), *, say: Callable[[str], None] = print) -> None:
    """Upgrade these services' databases (without names: all) to head. Raises MigrationError if one cannot be."""
    known = configured()
    unknown = sorted(set(services) - set(known))
    if unknown:
        raise MigrationError(f"no database for {', '.join(unknown)}; there are {', '.join(known)}")
    for service in services or known:
        before, after = upgrade(known[service])
        came_from = "at" if before == after else f"{before or 'nothing'} ->"
        say(f"{service}: {came_from} {after}")
        for warning in collation_warnings(known[service]):
            say(f"{service}: WARNING: {warning}")


def upgrade(database: Database) -> tuple[str | None, str | None]:
    """Upgrade one database as its owner; returns the revisions before and after. Raises MigrationError."""
    if not revisions(database.service):
        where = f"{database.service}/migrations/0001_....py"
        raise MigrationError(f"{database.service} has no migration: create {where} (CONTRIBUTING.md, A service)")
    engine = sqlalchemy.create_engine(
        database.owner_url,
        poolclass=sqlalchemy.NullPool,
        connect_args={"connect_timeout": 5, "options": f"-c lock_timeout={LOCK_TIMEOUT}"},
    )
    with wait_for(engine, database.service) as connection:
        try:
            before = _revision(connection)
            command.upgrade(alembic_config(database), "head")
            return before, _revision(connection)
        except (StillRunning, TablesLocked) as error:
            raise MigrationError(f"{database.service}: {error}") from error
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            raise MigrationError(f"{database.service}: a table is locked: {error.orig}") from error


def collation_warnings(database: Database) -> list[str]:
    """Return what is to be done because a library sorts otherwise than when the indexes were built, if anything."""
    engine = sqlalchemy.create_engine(
        database.owner_url, poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": 5}
    )
    with wait_for(engine, database.service) as connection:
        return collations.warnings_about(connection)


def revisions(service: str) -> list[Path]:
    """Return the files of the service's Alembic revisions."""
    return sorted((ROOT / service / "migrations").glob("[!_]*.py"))


def alembic_config(database: Database) -> Config:
    """Return Alembic's configuration for one service: the environment of all services, and the service's revisions."""
    config = Config()
    root = str(ROOT).replace("%", "%%")  # ConfigParser's escape
    config.set_main_option("script_location", f"{root}/extensions/storage/alembic")
    config.set_main_option("version_locations", f"{root}/{database.service}/migrations")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("prepend_sys_path", root)
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["service"] = database.service
    config.attributes["addresses"] = (database.owner_url, database.url)
    config.attributes["name_locale"] = database.name_locale
    return config


def wait_for(engine: sqlalchemy.Engine, service: str) -> sqlalchemy.Connection:
    """Return a connection as soon as the database accepts one. Raises MigrationError after CONNECT_SECONDS."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return engine.connect()
        except OperationalError as error:
            if time.monotonic() > deadline:
                where = engine.url.render_as_string(hide_password=True)
                raise MigrationError(f"{service}: no connection to {where}: {error.orig}") from error
            time.sleep(0.5)


def _revision(connection: sqlalchemy.Connection) -> str | None:
    inspector = sqlalchemy.inspect(connection)
    if not inspector.has_table("alembic_version"):
        connection.rollback()
        return None
    revision = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
    connection.rollback()
    return revision


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.migrate", description=__doc__)
    parser.add_argument("services", nargs="*", help="the services to migrate (default: all)")
    try:
        migrate(parser.parse_args().services)
    except MigrationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
