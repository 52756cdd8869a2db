"""What may come out of a method and is no Exception: Nameko's workers know only those."""

import eventlet
from greenlet import GreenletExit

INTERRUPTIONS = (eventlet.Timeout, SystemExit, GreenletExit)
"""A worker that let one of them pass would never answer nor ack, and with SystemExit take the whole process along.

Each of our decorators turns them into an exception. KeyboardInterrupt is not among them: it is a person's Ctrl-C.
"""


class Interrupted(Exception):
    """A method was ended by one of the INTERRUPTIONS."""
