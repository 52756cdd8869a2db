"""When orders were accepted and decided, read from the database of orders: nothing polls during a load."""

import asyncio
import time

import sqlalchemy

from qa.support.consistency import database_urls

DECISION_SECONDS = 90.0
DECISIONS = sqlalchemy.text("""
    SELECT orders.id, extract(epoch FROM orders.created_at)::float AS created, orders.cancel_reason,
           extract(epoch FROM min(timeline.at))::float AS decided
    FROM orders LEFT JOIN timeline
      ON timeline.order_id = orders.id AND timeline.event IN ('order.confirmed', 'order.cancelled')
    WHERE orders.created_at >= to_timestamp(:since) GROUP BY orders.id
""")


def read_decisions(since):
    """Return (id, created, decided, cancel_reason) of every order created since then; times as time.time()."""
    engine = sqlalchemy.create_engine(database_urls()["orders"], poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        return connection.execute(DECISIONS, {"since": since}).all()


def is_good(row):
    """Tell whether an order was decided on its merits: by stock and payment, not by its deadline."""
    return row.decided is not None and row.cancel_reason != "TIMEOUT"


async def all_decided(since):
    """Wait until every order created since then is decided; returns the decisions."""
    deadline = time.time() + DECISION_SECONDS
    while True:
        decisions = read_decisions(since)
        if all(row.decided for row in decisions) or time.time() > deadline:
            return decisions
        await asyncio.sleep(0.5)
