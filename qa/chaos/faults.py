"""What a fault is: something that is broken for a while, and whole again afterwards."""

import random
from typing import Any, Protocol


class NotStruck(Exception):
    """The fault could not be done this time: its point was not reached, its target was down already."""


class Fault(Protocol):
    """One kind of fault.

    `name` is the kind. A fault may say `long = True` when it holds for more than 25 seconds: the quick forms leave
    such a kind out.
    """

    name: str

    def strike(self, arena: Any, chance: random.Random) -> str:
        """Break something, hold it for 0.2 to 25 seconds, mend it, and return in words what was done.

        It is mended also when this raises. Raises NotStruck where there was nothing to break.
        """
