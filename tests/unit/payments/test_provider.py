"""The simulated payment provider."""

from decimal import Decimal

import pytest

from payments.provider import Approved, Declined, PaymentProvider, UnknownReference

provider = PaymentProvider(Decimal("10000.00"))


@pytest.mark.parametrize("amount", ["0.00", "149.90", "10000.00", "10000"])
def test_an_amount_up_to_the_limit_is_approved(amount):
    assert isinstance(provider.authorise("key", Decimal(amount), "TRY"), Approved)


@pytest.mark.parametrize("amount", ["10000.01", "99999999.99"])
def test_an_amount_over_the_limit_is_declined(amount):
    assert provider.authorise("key", Decimal(amount), "TRY") == Declined("amount over the limit of 10000.00")


def test_the_limit_can_be_configured():
    strict = PaymentProvider(Decimal(5))
    assert strict.authorise("key", Decimal("5.01"), "TRY") == Declined("amount over the limit of 5.00")


def test_the_same_key_gives_the_same_authorisation():
    first = provider.authorise("one", Decimal(5), "TRY")
    assert provider.authorise("one", Decimal(5), "TRY") == first
    assert provider.authorise("two", Decimal(5), "TRY") != first


@pytest.mark.parametrize("operation", ["capture", "void", "refund"])
def test_a_repeated_operation_has_the_same_result(operation):
    call = getattr(provider, operation)
    reference = provider.authorise("one", Decimal(5), "TRY").reference
    assert call(reference, "key") == call(reference, "key")
    assert call(reference, "key") != call(reference, "another")
    with pytest.raises(UnknownReference):
        call("never given", "key")
