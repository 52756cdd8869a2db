"""Creates the services' databases and roles, as config.yml names them: `python -m deploy.databases`.

Each database has an owner, which runs the migrations, and the role of its service, which may read and write rows
(extensions/storage/migrations.py grants the permissions of extensions/storage/tables.py). If ADMINISTRATOR_DATABASE_URL
is set, its user creates missing databases and roles on its server at every start, with the names and passwords of the
*_DATABASE_URLs. Otherwise an operator has to create them.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import connection, cursor
from psycopg2.sql import SQL, Identifier
from sqlalchemy.engine import URL, make_url

from contracts.services import SERVICES
from deploy.config_file import load
from deploy.server_users import ADMINISTRATOR_DATABASE
from extensions.runtime.addresses import database_url, database_variable, owner_database_url, owner_variable
from extensions.runtime.parsed_settings import is_production
from extensions.security.production import has_own_password

ONE_AT_A_TIME = 7_305_512  # the key of the advisory lock that every creator of databases takes
# The locale is stated, because that of the server differs from one installation to another. Columns whose order matters
# have a collation of their own (extensions/storage/collations.py).
CREATE = """
    CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'
    LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'
"""
HAND_OVER = """
    REASSIGN OWNED BY {role} TO {owner};
    GRANT CONNECT ON DATABASE {database} TO {role};
    GRANT USAGE ON SCHEMA public TO {role};
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
"""


class DatabasesError(Exception):
    """The databases cannot be created; the text says why."""


@dataclass(frozen=True)
class Database:
    """A service's database, with the service's address and the owner's, which may be the same."""

    service: str
    url: str
    owner_url: str
    name_locale: str = "und"
    """The locale of names that people sort. It matters only when the tables are created."""


def configured() -> dict[str, Database]:
    """Return each service's database. Without an owner's address, the service's role is the owner."""
    settings = load()
    locale = settings.get("NAME_LOCALE") or "und"
    return {
        one: Database(one, database_url(settings, one), owner_database_url(settings, one), locale) for one in SERVICES
    }


def make(administrator: str, databases: Iterable[Database]) -> list[str]:
    """Create missing databases and roles, and revoke permissions that earlier versions granted to services' roles.

    Only databases on the administrator's server (the same host and port) are changed. Returns their services.
    """
    server = make_url(administrator)
    ours = [database for database in databases if _place(make_url(database.url)) == _place(server)]
    with closing(_connect(server)) as outside, outside.cursor() as at:
        at.execute("SELECT pg_advisory_lock(%s)", [ONE_AT_A_TIME])  # held until the connection is closed
        for database in ours:
            url, owner = make_url(database.url), make_url(database.owner_url)
            _make_role(at, owner)
            _make_role(at, url)
            _make_database(at, url, owner)
            with closing(_connect(server.set(database=url.database))) as inside, inside.cursor() as within:
                _hand_over(within, url, owner)
                _shut(within, url, owner)
        for name in ("postgres", "template1"):
            at.execute(SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(Identifier(name)))
    return [database.service for database in ours]


def _place(url: URL) -> tuple[str | None, int]:
    return url.host, url.port or 5432


def _connect(url: URL) -> connection:
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    opened = psycopg2.connect(dsn, connect_timeout=5, options="-c lock_timeout=10s")
    opened.autocommit = True
    return opened


def _make_role(at: cursor, url: URL) -> None:
    role = Identifier(url.username or "")
    at.execute("SELECT FROM pg_roles WHERE rolname = %s", [url.username])
    if not at.rowcount:
        at.execute(SQL("CREATE ROLE {}").format(role))
    at.execute(SQL("ALTER ROLE {} LOGIN PASSWORD %s").format(role), [url.password])


def _make_database(at: cursor, url: URL, owner: URL) -> None:
    at.execute("SELECT FROM pg_database WHERE datname = %s", [url.database])
    if not at.rowcount:
        name, role = Identifier(url.database or ""), Identifier(owner.username or "")
        at.execute(SQL(CREATE).format(name, role))


def _hand_over(at: cursor, url: URL, owner: URL) -> None:
    """Transfer a database to its owner: up to version 0.1 the service's role owned it and its tables.

    This is one transaction, so running services are not interrupted. Migrations then revoke excessive permissions.
    """
    at.execute(
        "SELECT FROM pg_database WHERE datname = current_database() AND pg_get_userbyid(datdba) = %s", [url.username]
    )
    if at.rowcount and url.username != owner.username:
        names = {"role": url.username, "owner": owner.username, "database": url.database}
        at.execute(SQL(HAND_OVER).format(**{name: Identifier(value or "") for name, value in names.items()}))


def _shut(at: cursor, url: URL, owner: URL) -> None:
    """Let only the two roles connect, and only the owner create tables, including temporary ones."""
    database, role = Identifier(url.database or ""), Identifier(url.username or "")
    at.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    at.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, role))
    at.execute(SQL("ALTER SCHEMA public OWNER TO {}").format(Identifier(owner.username or "")))
    at.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")  # before PostgreSQL 15 every role could create tables


def weak_addresses(administrator: str | None, databases: Iterable[Database]) -> list[str]:
    """Return the variables of the addresses with a well-known password."""
    urls = {ADMINISTRATOR_DATABASE: administrator} if administrator else {}
    for database in databases:
        urls[database_variable(database.service)] = database.url
        urls[owner_variable(database.service)] = database.owner_url
    return [variable for variable, url in urls.items() if not has_own_password(url)]


def check_passwords(administrator: str, databases: Iterable[Database]) -> None:
    """Raise DatabasesError if a role would get a well-known password."""
    weak = weak_addresses(administrator, databases)
    if weak:
        raise DatabasesError(f"ENVIRONMENT is production: give {', '.join(weak)} passwords of their own")


def main() -> int:
    """The command line."""
    administrator = os.environ.get(ADMINISTRATOR_DATABASE)
    if not administrator:
        return 0
    databases = configured().values()
    try:
        if is_production(load()):
            check_passwords(administrator, databases)
        made = make(administrator, databases)
    except (DatabasesError, psycopg2.Error) as error:
        print(f"the databases cannot be created: {error}", file=sys.stderr)
        return 1
    print(f"databases and roles exist: {', '.join(made) or 'none on this server'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
