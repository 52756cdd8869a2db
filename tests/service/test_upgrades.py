"""Upgrades during which the previous version must not run: the migration refuses, and says what to stop."""

import os

import psycopg2
import pytest
import sqlalchemy
from alembic import command

from deploy.databases import Database, make
from deploy.migrate import MigrationError, alembic_config, upgrade

SCHEDULED = sqlalchemy.text("SELECT key, kind FROM work_items")
PENDING = """
    INSERT INTO payments (id, order_id, user_id, amount, currency, status, cause_message_id, cause_request_id,
                          cause_traceparent)
    VALUES (%(id)s, gen_random_uuid(), gen_random_uuid(), 1, 'TRY', 'PENDING', gen_random_uuid(), 'r', 't')
"""
PAYMENT = "01930000-0000-7000-8000-000000000000"


@pytest.fixture
def without_work_items(servers):
    """The database of a version of payments that calls its provider in its handlers, with a payment in it."""
    name = f"upgraded_{os.urandom(4).hex()}"
    payments = Database("payments", servers.postgres.url(name), servers.postgres.url(f"{name}_owner", name))
    make(servers.postgres.administrator_url(), [payments])
    upgrade(payments)
    command.downgrade(alembic_config(payments), "0003")
    return payments


def test_payments_without_work_items_must_be_stopped_first(without_work_items):
    session = psycopg2.connect(without_work_items.url.replace("+psycopg2", ""))
    try:
        session.autocommit = True
        session.cursor().execute(PENDING, {"id": PAYMENT})
        with pytest.raises(MigrationError, match=r"payments: stop all its processes.* version 0\.1\.0 .*\(1 sessions"):
            upgrade(without_work_items)
    finally:
        session.close()
    before, after = upgrade(without_work_items)
    assert before == "0003"
    assert after >= "0004"
    with sqlalchemy.create_engine(without_work_items.url).connect() as connection:
        assert connection.execute(SCHEDULED).all() == [(PAYMENT, "authorisation")]
