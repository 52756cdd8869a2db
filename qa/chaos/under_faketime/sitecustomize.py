"""Python imports this module first in every process that uses the clock of clock_faults.py.

libfaketime 0.9.10 passes a wrong time to clock_nanosleep when the monotonic clock is not faked, so time.sleep fails
with EINVAL. It does not change select(), which can wait instead. Eventlet's hub keeps its own copy of the module
`time`, and sleeps when it has no socket to wait for.
"""

import select
import time
import warnings
from types import SimpleNamespace

_select = select.select


def sleep(seconds):
    _select([], [], [], seconds)


time.sleep = sleep
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet prints a deprecation warning when it is imported
    from eventlet.hubs import poll
poll.time = SimpleNamespace(sleep=sleep)
