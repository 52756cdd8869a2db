"""Timers that fire once per interval, however many replicas of a service run: their due times are rows."""

from sqlalchemy import Table, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session


def claim(session: Session, timers: Table, name: str, seconds: float, *, at_once: bool = False) -> bool:
    """Tell whether the timer `name` is this transaction's to run; with `at_once`, even before it is due.

    The claim stands or falls with the transaction, and keeps every other replica out while that is open.
    """
    now = func.clock_timestamp()
    interval = func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    # Nobody waits for a replica that is running it now: what is due then has been dealt with.
    mine = select(literal(name), now + interval).where(func.pg_try_advisory_xact_lock(func.hashtext(name)))
    row = insert(timers).from_select(["name", "due_at"], mine)
    # A due time further away than the interval is from a clock that has been set back since.
    due = or_(literal(at_once), timers.c.due_at <= now, timers.c.due_at > now + interval)
    claimed = row.on_conflict_do_update(
        index_elements=["name"], set_={"due_at": row.excluded.due_at}, where=due
    ).returning(timers.c.name)
    return session.execute(claimed).first() is not None
