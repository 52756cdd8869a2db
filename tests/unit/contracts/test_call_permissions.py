"""A call that the broker would refuse is refused before it is sent, with the file that would allow it."""

import pytest

from contracts.call_permissions import CallNotAllowed, require_allowed


@pytest.mark.parametrize(
    ("caller", "service", "method"),
    [("gateway", "payments", "get_payment"), ("orders", "catalog", "get_products"), ("users", "users", "health")],
)
def test_calls_of_the_contract_are_allowed(caller, service, method):
    require_allowed(caller, service, method)


@pytest.mark.parametrize(("caller", "method"), [("orders", "create_product"), ("users", "get_products")])
def test_another_call_names_the_file_to_change(caller, method):
    message = rf"may not call catalog\.{method}: add it to contracts/call_permissions\.py"
    with pytest.raises(CallNotAllowed, match=message):
        require_allowed(caller, "catalog", method)


def test_a_call_to_an_unregistered_service_names_the_registry():
    with pytest.raises(CallNotAllowed, match=r"gateway calls parcels, .* contracts/services\.py"):
        require_allowed("gateway", "parcels", "get_parcel")
