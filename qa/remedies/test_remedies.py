"""The list of remedies matches the code: each can be removed by its patches, and its test exists."""

import ast
from pathlib import Path

import pytest

from qa.remedies import customers, hazards, outside_calls, pitfalls
from qa.remedies.remedy import Patch, Remedy, apply_all
from qa.remedies.table import outcomes, render_table, table_in_docs, without_times

ROOT = Path(__file__).parent.parent.parent
MODULES = (hazards, pitfalls, outside_calls, customers)
REMEDIES = [remedy for module in MODULES for remedy in module.REMEDIES]


@pytest.mark.parametrize("remedy", REMEDIES, ids=lambda remedy: f"{remedy.against} {remedy.what}")
def test_a_remedy_can_be_removed(remedy, tmp_path):
    for file in remedy.files:
        copy = tmp_path / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((ROOT / file).read_text())
    apply_all(remedy.patches, tmp_path)
    for file in remedy.files:
        text = (tmp_path / file).read_text()
        assert text != (ROOT / file).read_text()
        ast.parse(text)


@pytest.mark.parametrize("test", sorted({remedy.test for remedy in REMEDIES}))
def test_the_test_of_a_remedy_exists(test):
    file, *names = test.partition("[")[0].split("::")
    node = ast.parse((ROOT / file).read_text())
    for name in names:
        found = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.ClassDef) and one.name == name]
        assert found, f"{file} has no {name}"
        node = found[0]


@pytest.mark.parametrize(("titles", "remedies"), [(one.TITLES, one.REMEDIES) for one in MODULES])
def test_every_hazard_and_every_pitfall_has_a_remedy(titles, remedies):
    assert {remedy.against for remedy in remedies} == set(titles)
    assert len(hazards.TITLES) == 16
    assert len(pitfalls.TITLES) == 15


def test_the_docs_list_all_remedies():
    for remedies in MODULES:
        assert without_times(table_in_docs(remedies)) == without_times(render_table(remedies, {}))


@pytest.mark.parametrize("module", MODULES)
def test_outcomes_are_read_as_written(module):
    results = {(remedy.against, remedy.what): f"{number} s" for number, remedy in enumerate(module.REMEDIES)}
    assert outcomes(render_table(module, results)) == results


def test_a_patch_that_does_not_match_is_reported_and_undone(tmp_path):
    (tmp_path / "a.py").write_text("one\ntwo\n")
    remedy = Remedy("H0", "", [Patch("a.py", "one\n", ""), Patch("a.py", "three\n", "")], "")
    with pytest.raises(LookupError, match=r"a\.py: 0 times instead of once"):
        apply_all(remedy.patches, tmp_path)
    assert (tmp_path / "a.py").read_text() == "one\ntwo\n"
