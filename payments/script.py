"""What the simulated payment provider does with each payment method: contract section 4."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

HANG_SECONDS = 60.0
"""How long a call that hangs is kept: longer than any deadline, but not for ever."""


class UnknownMethod(Exception):
    """The provider does not know this payment method."""


@dataclass(frozen=True, slots=True)
class Script:
    """What the provider does with the calls of one payment."""

    declines: str | None = None
    """The reason for which it declines the authorisation."""
    seconds: float = 0.0
    """It responds this long after it got a call for the first time."""
    hangs: bool = False
    """It never responds to the authorisation."""
    loses_first_answer: bool = False
    """It acts, but the response to the first call of each operation is lost."""
    answers: int = 1
    """How often it sends each outcome."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """How many calls of an operation fail before the first one that succeeds."""

    @property
    def has_memory(self) -> bool:
        """Tell whether it depends on earlier calls."""
        return bool(self.seconds or self.loses_first_answer or self.errors)

    def failures(self, operation: str) -> int:
        """Return how many calls of an operation fail first."""
        return self.errors.get(operation, 0)


_FIXED = {
    "pm_ok": Script(),
    "pm_declined": Script(declines="the card was declined"),
    "pm_insufficient_funds": Script(declines="insufficient funds"),
    "pm_hangs": Script(hangs=True),
    "pm_answer_lost": Script(loses_first_answer=True),
    "pm_duplicate_answer": Script(answers=2),
}
_COUNTED: Mapping[str, Callable[[int], Script]] = {
    "slow": lambda milliseconds: Script(seconds=milliseconds / 1000),
    "error": lambda count: Script(errors={"authorise": count}),
    "capture_fails": lambda count: Script(errors={"capture": count}),
    "refund_fails": lambda count: Script(errors={"refund": count}),
}
_COUNTED_NAME = re.compile(r"pm_([a-z_]+)_([0-9]{1,6})")


def script_of(method: str) -> Script:
    """Return the script of a payment method. Raises UnknownMethod."""
    if method in _FIXED:
        return _FIXED[method]
    counted = _COUNTED_NAME.fullmatch(method)
    if counted is None or counted[1] not in _COUNTED:
        raise UnknownMethod(f"unknown payment method {method!r}")
    return _COUNTED[counted[1]](int(counted[2]))
