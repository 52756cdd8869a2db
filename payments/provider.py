"""The interface of a payment provider, and a simulated provider, which replaces a service such as Stripe.

A provider is idempotent: calls with the same key have the same outcome and move money once. So a call whose outcome is
unknown is repeated under the same key until the outcome is known.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256
from typing import Protocol
from uuid import UUID

from payments.script import HANG_SECONDS, Script, UnknownMethod, script_of

MAX_REMEMBERED = 10_000


class Operation(StrEnum):
    """What a provider is asked to do."""

    AUTHORISE = "authorise"
    """Hold money."""
    CAPTURE = "capture"
    """Take the money that is held."""
    VOID = "void"
    """Release the money that is held. The call names the authorisation by its key, so it also works if the outcome of
    the authorisation is unknown. If there was no authorisation yet, the provider will refuse a later one."""
    REFUND = "refund"
    """Give back `amount` of the money that was captured. There may be several refunds, each with its own key."""


class ProviderUnavailable(Exception):
    """The provider cannot serve now; it did nothing."""


class OutcomeUnknown(Exception):
    """The connection was lost after the call was sent. Only a repetition of the call shows what happened."""


class ProviderRefuses(Exception):
    """The call is invalid or contradicts an earlier one, such as a void after a capture. The provider did nothing."""


@dataclass(frozen=True, slots=True)
class Approved:
    """The money is held; `reference` identifies the authorisation in later calls."""

    reference: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The provider refuses the payment, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Captured:
    """The money was taken."""

    reference: str


@dataclass(frozen=True, slots=True)
class Voided:
    """No money is held."""

    reference: str


@dataclass(frozen=True, slots=True)
class Refunded:
    """The money was given back."""

    reference: str


Outcome = Approved | Declined | Captured | Voided | Refunded
DONE: dict[Operation, type[Captured | Voided | Refunded]] = {
    Operation.CAPTURE: Captured,
    Operation.VOID: Voided,
    Operation.REFUND: Refunded,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a provider."""

    operation: Operation
    key: str
    """The idempotency key."""
    authorisation: str
    """The idempotency key of the authorisation that the call is about."""
    amount: Decimal
    currency: str
    method: str
    reference: str | None = None
    """The provider's reference of the authorisation; None where it is not known."""
    refund_id: UUID | None = None
    """The refund that an administrator asked for. None for the refund of all that is left of a cancelled order."""
    attempt: int = 1
    """Which attempt of the call this is."""


class PaymentProvider(Protocol):
    """A payment provider."""

    def ask(self, call: Call) -> Sequence[Outcome]:
        """Make a call, and return the outcome, which a provider may send more than once.

        Raises ProviderUnavailable, OutcomeUnknown and ProviderRefuses. It may take long: the caller has a deadline, and
        no transaction open.
        """


class Ledger(Protocol):
    """Where a provider stores its operations, so that it can refuse a call that contradicts an earlier one."""

    def authorise(self, call: Call, reference: str) -> None:
        """Note an authorisation. Raises ProviderRefuses if it was voided before."""

    def move(self, operation: Operation, call: Call, reference: str) -> None:
        """Note a capture, void or refund of the authorisation. Raises ProviderRefuses.

        A refund is refused where the refunds of different keys would be more than what was captured.
        """


class SimulatedProvider:
    """Approves every amount up to and including `limit`, and follows the script of each payment method.

    Without a ledger it computes each outcome from the key, so that all instances have the same provider. It then cannot
    refuse contradictions.
    """

    def __init__(self, limit: Decimal, ledger: Ledger | None = None) -> None:
        self.limit = limit
        self._ledger = ledger
        self._asked: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """For each key of a script that needs it: the number of calls, and the time of the first."""

    def ask(self, call: Call) -> Sequence[Outcome]:
        """Make a call as the script of its method says."""
        script = _script(call)
        times, first = self._count(call.key) if script.has_memory else (1, time.monotonic())
        if script.hangs and call.operation is Operation.AUTHORISE:
            time.sleep(HANG_SECONDS)
            raise OutcomeUnknown("it never responds")
        # The provider continues after its caller has given up, so a repeated call waits only for the remaining time.
        time.sleep(max(0.0, first + script.seconds - time.monotonic()))
        if times <= script.failures(call.operation):
            raise ProviderUnavailable(f"error {times} of {script.failures(call.operation)}")
        outcome = self._authorise(call, script) if call.operation is Operation.AUTHORISE else self._move(call)
        if script.loses_first_answer and times == 1:
            raise OutcomeUnknown("the connection was lost after the call was sent")
        return (outcome,) * script.answers

    def _authorise(self, call: Call, script: Script) -> Approved | Declined:
        if script.declines:
            return Declined(script.declines)
        if call.amount > self.limit:
            return Declined(f"amount over the limit of {self.limit:.2f}")
        reference = reference_of(call.authorisation, call.currency)
        if self._ledger is not None:
            self._ledger.authorise(call, reference)
        return Approved(reference)

    def _move(self, call: Call) -> Outcome:
        reference = reference_of(call.authorisation, call.currency)
        if call.operation is not Operation.VOID and call.reference != reference:
            raise ProviderRefuses(f"there is no authorisation {call.reference}")
        if self._ledger is not None:
            self._ledger.move(call.operation, call, reference)
        return DONE[call.operation](_reference(call.operation, f"{reference}:{call.key}"))

    def _count(self, key: str) -> tuple[int, float]:
        times, first = self._asked.pop(key, (0, time.monotonic()))
        self._asked[key] = times + 1, first
        if len(self._asked) > MAX_REMEMBERED:
            self._asked.popitem(last=False)
        return times + 1, first


def _script(call: Call) -> Script:
    try:
        return script_of(call.method)
    except UnknownMethod as error:
        return Script(declines=str(error))


def reference_of(authorisation: str, currency: str) -> str:
    """Return the simulated provider's reference of the authorisation with this key."""
    return _reference("auth", f"{authorisation}:{currency}")


def _reference(kind: str, key: str) -> str:
    return f"{kind}_{sha256(key.encode()).hexdigest()[:32]}"
