"""All kinds of slow faults, sorted by what they affect.

A brief run injects them in this order, several at a time. So those that are active together affect the same, and the
probes that need nothing of it are judged. Payments are the last service: orders whose provider hangs are decided late.
"""

from qa.chaos import (
    alarm_faults,
    client_faults,
    cpu_faults,
    freeze_faults,
    lock_faults,
    provider_faults,
    refusal_faults,
    slow_network,
)
from qa.chaos.probes import GATEWAY
from qa.chaos.slow_faults import EVERYTHING, NOTHING, ONE_SERVICE

# Those that use rabbitmqctl, which takes seconds, begin.
FAMILIES = (
    refusal_faults,
    alarm_faults,
    provider_faults,
    lock_faults,
    client_faults,
    slow_network,
    freeze_faults,
    cpu_faults,
)
SCOPES = (
    NOTHING,
    *("users", "catalog", "notifications", "orders", "inventory", "payments"),
    GATEWAY,
    ONE_SERVICE,
    EVERYTHING,
)
KINDS = sorted((kind for family in FAMILIES for kind in family.FAULTS), key=lambda kind: SCOPES.index(kind.scope))
