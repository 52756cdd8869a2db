"""The payment provider, simulated: what would be Stripe.

Like a real one it is idempotent: the same call with the same key gives the same answer and moves money once, so a
call that is repeated after a crash does no harm. It needs no memory for that, because its answers follow from the key.
Without one it cannot refuse what contradicts an earlier call, as a real one must (ProviderRefuses). The tests of the
model and of faults put one in its place that does.
"""

from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256


class UnknownReference(Exception):
    """The provider was asked about an authorisation that it never gave."""


class ProviderRefuses(Exception):
    """The provider was asked for the opposite of what it has done: to void what it captured, to capture what it voided.

    Nothing was done. Every provider must refuse that; payments.rules.CATCH_UP says what it tells us.
    """


@dataclass(frozen=True, slots=True)
class Approved:
    """The money is held; `reference` names the authorisation from now on."""

    reference: str


@dataclass(frozen=True, slots=True)
class Declined:
    """There will be no money, for this reason."""

    reason: str


Outcome = Approved | Declined


class PaymentProvider:
    """Approves every amount up to and including `limit`."""

    def __init__(self, limit: Decimal) -> None:
        self.limit = limit

    def authorise(self, key: str, amount: Decimal, currency: str) -> Outcome:
        """Hold `amount`. `key` is the idempotency key: one authorisation a key, whatever happens."""
        if amount > self.limit:
            return Declined(f"amount over the limit of {self.limit:.2f}")
        return Approved(_reference("auth", f"{key}:{currency}"))

    def capture(self, reference: str, key: str) -> str:
        """Take the money that is held; returns the provider's reference of the capture."""
        return self._move("capture", reference, key)

    def void(self, reference: str, key: str) -> str:
        """Let go of the money that is held; returns the provider's reference of that."""
        return self._move("void", reference, key)

    def refund(self, reference: str, key: str) -> str:
        """Give back money that was captured; returns the provider's reference of the refund."""
        return self._move("refund", reference, key)

    def _move(self, kind: str, reference: str, key: str) -> str:
        if not reference.startswith("auth_"):
            raise UnknownReference(reference)
        return _reference(kind, f"{reference}:{key}")


def _reference(kind: str, key: str) -> str:
    return f"{kind}_{sha256(key.encode()).hexdigest()[:32]}"
