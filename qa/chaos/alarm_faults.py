"""Alarms of RabbitMQ: the broker has too little memory or disk space, and stops reading from publishers."""

import re
from contextlib import contextmanager

from contracts.services import SERVICES
from qa.chaos.broker_control import control, undo
from qa.chaos.disk_faults import LIMIT, MORE_THAN_ANY_DISK, configured_limit
from qa.chaos.probes import CALLS
from qa.chaos.slow_faults import EVERYTHING, Effect, SlowFault

WATERMARK = ("set_vm_memory_high_watermark", "absolute")
LESS_THAN_IT_HAS = "1MB"
DEPENDENT = frozenset({CALLS, *SERVICES})


def memory_watermark(rabbitmq):
    """The limit in the configuration file that this broker has read."""
    configuration = (rabbitmq.home / "rabbitmq.conf").read_text()
    return re.search(r"^vm_memory_high_watermark\.absolute\s*=\s*(\S+)", configuration, re.MULTILINE).group(1)


def memory(sandbox, _chance):
    """The memory alarm."""
    return _effect(sandbox, "memory alarm", WATERMARK, LESS_THAN_IT_HAS, memory_watermark(sandbox.servers.rabbitmq))


def disk(sandbox, _chance):
    """The disk alarm."""
    return _effect(sandbox, "disk alarm", (LIMIT,), MORE_THAN_ANY_DISK, configured_limit())


def _effect(sandbox, what, command, limit, normal_limit):
    rabbitmq = sandbox.servers.rabbitmq

    @contextmanager
    def broken():
        try:
            control(rabbitmq, *command, limit)
            yield lambda: "undone afterwards"
        finally:
            undo(rabbitmq, *command, normal_limit)

    return Effect(what, DEPENDENT, broken, exclusive=("rabbitmq",))


FAULTS = [
    SlowFault("the broker's memory alarm", memory, EVERYTHING),
    SlowFault("the broker's alarm of a full disk", disk, EVERYTHING),
]
