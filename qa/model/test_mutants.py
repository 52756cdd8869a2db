"""The explorer finds every bug that is put in: a mutant that survives is a hole in the promises."""

from dataclasses import replace

import pytest

from qa.model.explorer import explore
from qa.model.mutants import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant):
    assert mutant.hunt().broken is not None, "it survives"


@pytest.mark.parametrize("scenario", {mutant.scenario for mutant in MUTANTS}, ids=lambda scenario: scenario.name)
def test_the_same_world_without_a_mutant_is_sound(scenario):
    sound = replace(scenario, environment=type(scenario.environment)())
    report = explore(sound)
    assert report.broken is None, report.story


@pytest.mark.parametrize(
    "mutant", [each for each in MUTANTS if "trusts the inbox" in each.name], ids=lambda each: each.name
)
def test_the_inbox_alone_protects_as_well(mutant):
    report = replace(mutant, scenario=replace(mutant.scenario, inbox=True)).hunt()
    assert report.broken is None, report.story
