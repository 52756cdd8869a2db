"""All kinds of slow faults. Their families alternate, because faults of one family often wait for each other."""

from itertools import chain, zip_longest

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

FAMILIES = (
    lock_faults,
    provider_faults,
    freeze_faults,
    slow_network,
    refusal_faults,
    cpu_faults,
    client_faults,
    alarm_faults,
)
KINDS = [kind for kind in chain(*zip_longest(*(family.FAULTS for family in FAMILIES))) if kind is not None]
