"""Every order of events, crash and command in small worlds; `make model` explores the larger ones."""

from dataclasses import replace

import pytest

from qa.model import scenarios, symmetry, world
from qa.model.explorer import explore
from qa.model.mutants import MUTANTS
from qa.model.tables import PAYMENT, RESERVATION, TABLES, Coverage

LIMIT = 1_000_000


@pytest.fixture(scope="module")
def reports():
    """The report of each world, explored once."""
    return {scenario.name: explore(scenario, LIMIT) for scenario in scenarios.SHORT}


@pytest.mark.parametrize("name", [scenario.name for scenario in scenarios.SHORT])
def test_every_promise_holds_in_every_state(reports, name):
    report = reports[name]
    print(report)
    assert report.broken is None, report.story
    assert report.at_rest > 0


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_row_of_the_contract_s_tables_is_gone_through_and_no_other(reports, table):
    coverage = Coverage.of(table, reports.values())
    assert (coverage.never, coverage.wrong) == ([], []), str(coverage)


def test_a_row_that_is_never_gone_through_is_noticed(reports):
    unaided = [reports[scenarios.ONE_ORDER.name]]
    assert (None, "order.confirmed", ("an error", ())) in Coverage.of(PAYMENT, unaided).never
    forged = replace(RESERVATION, rows=RESERVATION.rows | {("FAILED", "order.created"): {("RESERVED", ())}})
    coverage = Coverage.of(forged, reports.values())
    assert coverage.never == [("FAILED", "order.created", ("RESERVED", ()))]
    assert coverage.wrong == [("FAILED", "order.created", (None, ()))]


def test_what_is_broken_is_told_step_by_step():
    [mutant] = [each for each in MUTANTS if each.name == "what is reserved counts as available"]
    report = mutant.hunt()
    assert report.broken.args[0] == "0 <= reserved <= on hand"
    assert report.path == [
        "order 1: inventory gets order.created -> RESERVED; A: 1 on hand, 1 reserved",
        "order 1: inventory commits order.created",
        "order 2: inventory gets order.created -> RESERVED; A: 1 on hand, 2 reserved",
        "order 2: inventory commits order.created",
    ]


def test_states_that_differ_in_names_only_are_one(monkeypatch):
    once = explore(scenarios.TWINS)
    monkeypatch.setattr(world, "symmetries", lambda scenario: symmetry.symmetries(scenario)[:1])
    twice = explore(scenarios.TWINS)
    assert once.at_rest < twice.at_rest
    assert once.states < twice.states <= 2 * once.states


def test_without_its_bound_an_exploration_that_does_not_end_would_fail():
    assert "more than 10" in explore(scenarios.ONE_ORDER, limit=10).story
