"""The decorator of RPC methods, called as Nameko calls it."""

import pytest

from contracts.catalog import UpdateProduct
from contracts.errors import ValidationFailed
from extensions.rpc.server import rpc


class Toy:
    name = "toy"

    @rpc(transaction=False)
    def change(self, *, changes: UpdateProduct):
        return changes


def test_an_argument_named_self_is_refused_like_any_other_unknown_one():
    with pytest.raises(ValidationFailed) as refusal:
        Toy().change(self=1)
    assert [error.field for error in refusal.value.errors] == ["self"]
