"""The words of the contracts that the pages of administrators and operators show."""

import re
from typing import get_args

import pytest

from contracts.imports import Status
from contracts.operations import CircuitView
from contracts.payments import AttemptOutcome, PaymentStatus, RefundStatus
from gateway.console import FOLDER
from inventory.use_cases import ADJUSTED, FIRST, SET


def words_of(name):
    """The keys of the texts of a module that both languages have."""
    keys = re.findall(r"^    (\w+): [\"{]", (FOLDER / name).read_text(), re.MULTILINE)
    return {key for key in keys if keys.count(key) > 1}


@pytest.mark.parametrize(
    ("module", "stated"),
    [
        ("ui/badge.js", {*AttemptOutcome, *PaymentStatus, *RefundStatus, FIRST, SET, ADJUSTED}),
        ("views/admin_import.js", get_args(Status)),
        ("views/health.js", get_args(CircuitView.model_fields["state"].annotation)),
        ("views/admin_payment.js", ("authorise", "capture", "void", "refund")),
    ],
)
def test_every_word_has_a_text_in_both_languages(module, stated):
    assert {str(word) for word in stated} <= words_of(module)
