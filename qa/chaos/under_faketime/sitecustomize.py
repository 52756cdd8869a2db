"""Python runs this first wherever the chaos clock is in force (clock_faults.py).

libfaketime 0.9.10 hands clock_nanosleep a wrong time when the monotonic clock is not to be faked, so that time.sleep
fails with EINVAL. select() measures the same pause and is left alone by it. Eventlet's hub keeps its own copy of the
module `time`, and sleeps when it has no socket to wait for.
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
    warnings.simplefilter("ignore")  # eventlet announces its end at every import
    from eventlet.hubs import poll
poll.time = SimpleNamespace(sleep=sleep)
