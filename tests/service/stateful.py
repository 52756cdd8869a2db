"""Shared by the stateful tests of inventory and payments: real transactions with or without a crash, and settings."""

import os
from contextlib import contextmanager
from uuid import UUID

import sqlalchemy
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from nameko import config
from sqlalchemy.orm import Session

from contracts.base import Received
from contracts.ids import new_id
from extensions.runtime.addresses import database_url

# A test run has a seed, so it is deterministic; STATEFUL_EXAMPLES=1000 searches for new failures.
EXAMPLES = os.environ.get("STATEFUL_EXAMPLES")
SETTINGS = settings(
    max_examples=int(EXAMPLES or 20),
    stateful_step_count=25,
    database=None,
    deadline=None,
    print_blob=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
MOST_RUNS = 30
# Finding a bug is enough; shrinking it to the fewest steps takes too long.
HUNT = settings(SETTINGS, phases=(Phase.generate,), print_blob=False)


def run_until_seen(machine, statuses):
    """Run a state machine, and again with other examples until its runs have reached every status."""
    # A change of a rule, even of its name, changes which examples are drawn.
    for number in range(MOST_RUNS):
        run_state_machine_as_test(machine if EXAMPLES else seed(number)(machine), settings=SETTINGS)
        if machine.seen >= statuses:
            return
    raise AssertionError(f"the runs are too short to reach {statuses - machine.seen}")


def hunt(machine):
    """Run a state machine, and again with other examples until one fails. Raises its error."""
    for number in range(MOST_RUNS):
        run_state_machine_as_test(seed(number)(machine), settings=HUNT)


class Crash(Exception):
    """The process dies before it commits."""


class Transactions:
    """Runs use cases, each in its own transaction, and records the published events."""

    def __init__(self, service):
        url = database_url(config, service)
        # These tests never kill the database, so commits need not wait for the disk.
        self.engine = sqlalchemy.create_engine(url, connect_args={"options": "-c synchronous_commit=off"})
        self._reader = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", pool_reset_on_return=None)

    @contextmanager
    def open(self, published, *, crash=False):
        """Yield (session, publish). A commit adds the published events to `published`; a crash discards them."""
        said = []

        def publish(event, cause=None):
            said.append(event)
            return new_id()

        try:
            with Session(self.engine) as session, session.begin():
                yield session, publish
                session.flush()
                if crash:
                    raise Crash
        except Crash:
            return
        published.extend(said)

    def read(self, statement, **parameters):
        """Return rows."""
        with self._reader.connect() as connection:
            return connection.execute(sqlalchemy.text(statement), parameters).all()

    def close(self):
        """Close the connections."""
        self.engine.dispose()
        self._reader.dispose()


def received(event):
    """Return a delivery of `event` that is in no inbox, so that only the rules detect duplicates."""
    return Received(event, UUID(int=new_id().int), "request", "trace")
