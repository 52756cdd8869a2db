"""Exceptions that can end a method and do not inherit from Exception. Nameko's workers catch only Exception."""

import eventlet
from greenlet import GreenletExit

INTERRUPTIONS = (eventlet.Timeout, SystemExit, GreenletExit)
"""If one of them escaped, the worker would neither reply nor ack; SystemExit would also end the whole process.

Each of our decorators turns them into an exception. KeyboardInterrupt is not included: it is the operator's Ctrl-C.
"""


class Interrupted(Exception):
    """A method was ended by one of the INTERRUPTIONS."""
