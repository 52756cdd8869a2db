"""All interleavings of events, crashes and commands in small scenarios; `make model` explores larger ones."""

from dataclasses import replace

import pytest

from qa.model import scenarios, symmetry, world
from qa.model.explorer import explore
from qa.model.mutants import MUTANTS
from qa.model.tables import PAYMENT, RESERVATION, TABLES, Coverage

LIMIT = 1_000_000


@pytest.fixture(scope="module")
def reports():
    """The report of each scenario; each is explored once."""
    return {scenario.name: explore(scenario, LIMIT) for scenario in scenarios.SHORT}


@pytest.mark.parametrize("name", [scenario.name for scenario in scenarios.SHORT])
def test_every_invariant_holds_in_every_state(reports, name):
    report = reports[name]
    print(report)
    assert report.broken is None, report.trace
    assert report.at_rest > 0


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_exactly_the_rows_of_the_contracts_tables_are_covered(reports, table):
    coverage = Coverage.of(table, reports.values())
    assert (coverage.missing, coverage.unexpected) == ([], []), str(coverage)


def test_a_row_that_is_not_covered_is_reported(reports):
    unaided = [reports[scenarios.ONE_ORDER.name]]
    assert (None, "order.confirmed", ("an error", ())) in Coverage.of(PAYMENT, unaided).missing
    forged = replace(RESERVATION, rows=RESERVATION.rows | {("FAILED", "order.created"): {("RESERVED", ())}})
    coverage = Coverage.of(forged, reports.values())
    assert coverage.missing == [("FAILED", "order.created", ("RESERVED", ()))]
    assert coverage.unexpected == [("FAILED", "order.created", (None, ()))]


def test_a_violation_is_reported_with_its_steps():
    [mutant] = [each for each in MUTANTS if each.name == "reserved units count as available"]
    report = mutant.explore()
    assert report.broken.args[0] == "0 <= reserved <= on hand"
    assert report.path == [
        "order 1: inventory gets order.created -> RESERVED; A: 1 on hand, 1 reserved",
        "order 1: inventory commits order.created",
        "order 2: inventory gets order.created -> RESERVED; A: 1 on hand, 2 reserved",
        "order 2: inventory commits order.created",
    ]


def test_states_that_differ_only_in_names_count_as_one(monkeypatch):
    once = explore(scenarios.TWINS)
    monkeypatch.setattr(world, "symmetries", lambda scenario: symmetry.symmetries(scenario)[:1])
    twice = explore(scenarios.TWINS)
    assert once.at_rest < twice.at_rest
    assert once.states < twice.states <= 2 * once.states


def test_an_exploration_beyond_its_limit_fails():
    assert "more than 10" in explore(scenarios.ONE_ORDER, limit=10).trace
