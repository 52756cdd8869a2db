"""The interface of a fault: it breaks something for a while, and repairs it."""

import random
from typing import Any, Protocol


class FaultNotInjected(Exception):
    """The fault had no effect this time: its point was not reached, or its target was already down."""


class Fault(Protocol):
    """One kind of fault.

    `name` is the kind. A fault that lasts more than 25 seconds has `long = True`; quick runs skip it.
    """

    name: str

    def inject(self, sandbox: Any, chance: random.Random) -> str:
        """Break something for 0.2 to 25 seconds, repair it, and return a description.

        It is also repaired if this raises. Raises FaultNotInjected if there was nothing to break.
        """
