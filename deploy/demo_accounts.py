"""Switches off accounts that have the published demo password, in production: `python -m deploy.demo_accounts`.

A database that served the demo may become the one of a shop. Its administrator would then be open to everybody who has
read the README. `deploy.prepare` runs this before the services start.
"""

import sys
from collections.abc import Iterator

import sqlalchemy
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from contracts.users import Role
from deploy.config_file import load
from deploy.seed import ADMIN, CUSTOMER, DEFAULT_PASSWORD
from extensions.runtime.addresses import database_url
from extensions.runtime.parsed_settings import is_production
from users import use_cases
from users.models import User

# Each check takes as long as a login. A shop with more administrators has chosen their passwords itself.
MAX_CHECKED = 100


def switch_off(users_database: str) -> list[str]:
    """Switch off the demo accounts and administrators with the demo password, end their sessions, return the addresses.

    Also the last administrator: the operator can make another one, and needs no login for it.
    """
    engine = sqlalchemy.create_engine(
        users_database,
        poolclass=sqlalchemy.NullPool,
        connect_args={"connect_timeout": 5, "options": "-c lock_timeout=10s -c statement_timeout=60s"},
    )
    with Session(engine) as session, session.begin():
        open_ones = list(_with_demo_password(session))
        for user in open_ones:
            use_cases.switch_off(session, user)
        return [user.email for user in open_ones]


def _with_demo_password(session: Session) -> Iterator[User]:
    demo = func.lower(User.email).in_([ADMIN, CUSTOMER])
    suspects = select(User).where(User.is_active, or_(demo, User.roles.contains([Role.ADMIN.value])))
    for user in session.scalars(suspects.order_by(demo.desc(), User.id).limit(MAX_CHECKED).with_for_update()):
        if _is_demo_password(user.password_hash):
            yield user


def _is_demo_password(password_hash: str) -> bool:
    try:
        return PasswordHasher().verify(password_hash, DEFAULT_PASSWORD)
    except (Argon2Error, InvalidHashError):
        return False


def main() -> int:
    """The command line. Outside production it does nothing."""
    settings = load()
    if not is_production(settings):
        return 0
    try:
        closed = switch_off(database_url(settings, "users"))
    except SQLAlchemyError as error:
        print(f"the demo accounts cannot be checked: {error}", file=sys.stderr)
        return 1
    if closed:
        print(
            f"ENVIRONMENT is production: switched off {', '.join(closed)}, which had the published demo password. "
            "If the shop has no other administrator, register one, and give it the role as docs/operating.md says."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
