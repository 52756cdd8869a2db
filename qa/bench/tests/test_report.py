import pytest

from qa.bench import report, rounds
from qa.bench.rounds import Bench, Lengths, Measured
from qa.bench.shop import Inconsistent

FOUND = {
    "began": "2026-01-31 08:30",
    "seconds": 90.0,
    "commit": "abc1234",
    "machine": {"processor": "one", "cores": 2, "memory": "8 GiB", "python": "3.11.7", "kernel": "6"},
    "rounds": [{"suite: relay events/s": 6000.0}],
    "cpu": [{"floor": {"rabbitmq": 2.0, "orders": 6.0}}],
    "load_averages": [0.4],
    "problems": [],
    "sweep": [],
    "long_run": {},
}


def test_only_the_text_between_the_markers_is_replaced(tmp_path, monkeypatch):
    docs = tmp_path / "performance.md"
    docs.write_text(f"# Before\n\n{report.BEGIN}\nold\n{report.END}\n\nAfter\n")
    monkeypatch.setattr(report, "DOCS", docs)
    report.put_into_docs(FOUND)
    report.put_into_docs(FOUND)
    text = docs.read_text()
    assert text.startswith(f"# Before\n\n{report.BEGIN}")
    assert text.endswith(f"{report.END}\n\nAfter\n")
    assert text.count("| outbox relay | ≥ 5,000 confirmed events/s | 6,000 | met |") == 1
    assert "old" not in text


def test_the_document_has_the_markers():
    before, begin, rest = report.DOCS.read_text().partition(report.BEGIN)
    assert before
    assert begin
    assert report.END in rest


def test_fewer_than_five_rounds_are_marked_as_a_quick_look():
    assert "not a claim" in report.markdown(FOUND)
    assert "not a claim" not in report.markdown(FOUND | {"rounds": FOUND["rounds"] * 5, "cpu": FOUND["cpu"] * 5})


def test_processor_shares_are_sorted_by_size():
    assert "8.0 in all: orders 6.00 (75%), rabbitmq 2.00 (25%)" in report.terminal(FOUND)


def test_processor_time_is_compared_with_the_floor():
    cpu = [{"floor behind HTTP": {"rabbitmq": 2.0, "orders": 3.0}, "suite, 32 clients": {"orders": 10.0}}]
    assert "against the floor behind HTTP: suite, 32 clients 2 times." in report.markdown(FOUND | {"cpu": cpu})
    assert "nothing to compare" in report.markdown(FOUND)


def kept(tmp_path, **changes):
    path = tmp_path / "result.json"
    options = {"quick": False, "tiny": False, "only": ["suite"]}
    report.write_json(path, FOUND | {"commit": report._commit(), "options": options} | changes)
    return path


def test_the_results_of_several_runs_are_combined(tmp_path):
    path = kept(tmp_path, turns=[{"gateways: one": 1.0}], memory={}, plans=[])
    first = report.earlier(path, {"quick": False, "tiny": False, "only": ["memory"]})
    second = FOUND | {"began": "2026-01-31 12:00", "turns": [{"memory: orders": 3.0}], "memory": {"orders": 7}}
    both = report.combine(first, second | {"plans": [], "rounds": [], "cpu": [], "load_averages": []})
    assert (both["began"], both["seconds"]) == ("2026-01-31 08:30", 180.0)
    assert both["turns"] == [{"gateways: one": 1.0}, {"memory: orders": 3.0}]
    assert (both["rounds"], both["memory"]) == (FOUND["rounds"], {"orders": 7})


@pytest.mark.parametrize(
    ("changes", "options"),
    [({"commit": "0000000"}, {}), ({}, {"quick": True})],
    ids=["other code", "other lengths"],
)
def test_a_result_of_other_code_or_lengths_is_not_added_to(tmp_path, changes, options):
    with pytest.raises(report.Incomparable):
        report.earlier(kept(tmp_path, **changes), {"quick": False, "tiny": False} | options)


def test_a_missing_result_is_not_added_to(tmp_path):
    with pytest.raises(report.Incomparable):
        report.earlier(tmp_path / "result.json", {})


def test_problems_are_reported_first():
    failed = FOUND | {"problems": ["a check failed\nwith details"]}
    assert "**Failed: a check failed**" in report.markdown(failed)
    assert "FAILED: a check failed" in report.terminal(failed)


def test_a_comparison_lists_notable_changes():
    slower = FOUND | {"rounds": [{"suite: relay events/s": 4500.0}]}
    told = "\n".join(report.compare(FOUND, slower))
    assert "-25%  outbox relay: 6,000 -> 4,500" in told
    assert "-25%" not in "\n".join(report.compare(FOUND, FOUND))


def test_the_previous_result_is_kept(tmp_path):
    path = tmp_path / "bench/result.json"
    report.write_json(path, {"commit": "first"})
    report.write_json(path, {"commit": "second"})
    assert "first" in path.with_name("old.json").read_text()
    assert "second" in path.read_text()


def test_a_candidate_that_fails_does_not_affect_the_others():
    bench, order = Bench.__new__(Bench), []
    bench.measured, bench._say = Measured(), lambda _text: None
    for name in ("floor", "faststream", "stock", "suite"):
        setattr(bench, f"_measure_{name}", part(name, order))
    bench.round(2)
    assert order == ["stock", "suite", "floor"]  # each round begins with another candidate
    assert bench.measured.problems == ["faststream: no broker"]


def part(name, order):
    def measure():
        if name == "faststream":
            raise RuntimeError("no broker")
        order.append(name)

    measure.__name__ = f"_measure_{name}"
    return measure


def test_figures_of_an_inconsistent_suite_are_dropped(monkeypatch):
    class Shop:
        def __init__(self, _bench_servers):
            self.memory = {"orders": 70.0}
            self.stopped = False

        def start(self):
            shops.append(self)

        def stop(self):
            self.stopped = True

        def reads(self, _seconds, _clients):
            return {"orders": 1000.0}

        def resident(self):
            return self.memory

        def require_consistent(self):
            raise Inconsistent("1 order without its payment")

    shops = []
    monkeypatch.setattr(rounds, "Shop", Shop)
    monkeypatch.setattr(rounds, "relayed_per_second", lambda _shop, _rows: 6000.0)
    bench = Bench.__new__(Bench)
    bench.measured, bench._say, bench._bench_servers, bench._lengths = Measured(), lambda _text: None, None, Lengths()
    bench._place_orders = lambda _shop: bench._note({"suite: settled/s, 32 clients": 150.0})
    bench.round(0, only=("suite",))
    assert bench.measured.rounds == [{}]
    assert bench.measured.problems == ["suite: 1 order without its payment"]
    assert shops[0].stopped
