"""The explorer finds every mutant: one that survives shows that an invariant is missing."""

from dataclasses import replace

import pytest

from qa.model.explorer import explore
from qa.model.mutants import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant):
    assert mutant.explore().broken is not None, "it survives"


@pytest.mark.parametrize("scenario", {mutant.scenario for mutant in MUTANTS}, ids=lambda scenario: scenario.name)
def test_the_same_scenario_without_a_mutant_holds_all_invariants(scenario):
    report = explore(replace(scenario, environment=type(scenario.environment)()))
    assert report.broken is None, report.trace


@pytest.mark.parametrize(
    "mutant", [each for each in MUTANTS if "trusts the inbox" in each.name], ids=lambda each: each.name
)
def test_the_inbox_alone_also_prevents_the_violation(mutant):
    report = replace(mutant, scenario=replace(mutant.scenario, inbox=True)).explore()
    assert report.broken is None, report.trace
