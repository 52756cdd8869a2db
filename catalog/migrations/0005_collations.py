"""The collation `names`, in which people sort product names, and the collation C for skus and other keys.

`names` is a collation of ICU. Its locale is the setting NAME_LOCALE when this migration runs: `und`, the root
collation, or a language such as `tr`.
"""

import re

import sqlalchemy as sa
from alembic import op

from extensions.storage.collations import DEFAULT_COLLATION, set_collation
from extensions.storage.migrations import drop_collations, state_collations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

LOCALE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


def upgrade() -> None:
    """Create the collation and state the collations; this builds the indexes on these columns anew."""
    state_collations(op)
    op.execute(sa.text(f"CREATE COLLATION names (provider = icu, locale = '{_locale()}')"))
    set_collation(op, "products", ["name"], "names")
    set_collation(op, "products", ["sku"])


def downgrade() -> None:
    """Use the collation of the database."""
    set_collation(op, "products", ["name", "sku"], DEFAULT_COLLATION)
    op.execute(sa.text("DROP COLLATION names"))
    drop_collations(op)


def _locale() -> str:
    """Return the setting. Raises ValueError if it is not the tag of a language."""
    config = op.get_context().config
    locale = str((config and config.attributes.get("name_locale")) or "und")
    if not LOCALE.fullmatch(locale):
        message = f"NAME_LOCALE is {locale!r}; it must be a language tag such as und, tr or de-AT"
        raise ValueError(message)
    return locale
