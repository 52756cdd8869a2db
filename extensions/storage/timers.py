"""Timers that fire once per interval for all instances of a service together. Their due times are rows."""

from sqlalchemy import Table, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session


def claim(session: Session, timers: Table, name: str, seconds: float, *, at_once: bool = False) -> bool:
    """Claim the timer `name` if it is due; with `at_once`, even if it is not. Returns whether it was claimed.

    The claim is committed or rolled back with the transaction, and excludes other instances until then.
    """
    now = func.clock_timestamp()
    interval = func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    # Do not wait for an instance that is running the timer now: it does the work that is due.
    mine = select(literal(name), now + interval).where(func.pg_try_advisory_xact_lock(func.hashtext(name)))
    row = insert(timers).from_select(["name", "due_at"], mine)
    # A due time further away than the interval was written before the database's clock was set back.
    due = or_(literal(at_once), timers.c.due_at <= now, timers.c.due_at > now + interval)
    claimed = row.on_conflict_do_update(
        index_elements=["name"], set_={"due_at": row.excluded.due_at}, where=due
    ).returning(timers.c.name)
    return session.execute(claimed).first() is not None
