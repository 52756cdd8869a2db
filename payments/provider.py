"""The simulated payment provider, in the place of a service such as Stripe.

It is idempotent, as a real one is: calls with the same key have the same outcome and move money once, so a call may be
repeated after a crash. It stores nothing: each outcome is computed from the key. Therefore it cannot refuse a call that
contradicts an earlier one, as a real provider does (ProviderRefuses). The model and the fault tests replace it by one
that stores its calls and refuses.
"""

from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256


class UnknownReference(Exception):
    """The call names an authorisation that the provider never gave."""


class ProviderRefuses(Exception):
    """The call contradicts an earlier one: a void after a capture, or a capture after a void. The provider did nothing.

    payments.rules.CATCH_UP says what payments does then.
    """


@dataclass(frozen=True, slots=True)
class Approved:
    """The money is held; `reference` identifies the authorisation in later calls."""

    reference: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The provider refuses the payment, for this reason."""

    reason: str


Outcome = Approved | Declined


class PaymentProvider:
    """Approves every amount up to and including `limit`."""

    def __init__(self, limit: Decimal) -> None:
        self.limit = limit

    def authorise(self, key: str, amount: Decimal, currency: str) -> Outcome:
        """Hold `amount`. `key` is the idempotency key: there is at most one authorisation for each key."""
        if amount > self.limit:
            return Declined(f"amount over the limit of {self.limit:.2f}")
        return Approved(_reference("auth", f"{key}:{currency}"))

    def capture(self, reference: str, key: str) -> str:
        """Take the money that is held. Returns the provider's reference of the capture."""
        return self._move("capture", reference, key)

    def void(self, reference: str, key: str) -> str:
        """Release the money that is held. Returns the provider's reference of the void."""
        return self._move("void", reference, key)

    def refund(self, reference: str, key: str) -> str:
        """Give back money that was captured. Returns the provider's reference of the refund."""
        return self._move("refund", reference, key)

    def _move(self, kind: str, reference: str, key: str) -> str:
        if not reference.startswith("auth_"):
            raise UnknownReference(reference)
        return _reference(kind, f"{reference}:{key}")


def _reference(kind: str, key: str) -> str:
    return f"{kind}_{sha256(key.encode()).hexdigest()[:32]}"
