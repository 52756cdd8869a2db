from qa.bench.goals import figures, judge, spread


def verdict(rounds, what):
    return next((value, result) for goal, value, result in judge(rounds) if goal.what == what)


def a_round(suite, floor, **more):
    return {
        "suite: settled/s, 32 clients": suite + 50,
        "suite: settled/s, 128 clients": suite,
        "floor behind HTTP: settled/s": floor,
        **more,
    }


FLOOR = "settled orders, the lesser of 32 and 128 clients / floor behind HTTP"


def test_a_ratio_is_of_two_figures_of_the_same_round():
    rounds = [a_round(100, 100), a_round(10, 100), a_round(70, 70)]  # the medians of each alone would give 0.7
    value, result = verdict(rounds, FLOOR)
    assert (value.median, value.least, value.most, result) == (1.0, 0.1, 1.0, "met")


def test_the_lesser_rate_counts():
    assert verdict([a_round(60, 100)], FLOOR)[1] == "NOT met"
    assert verdict([a_round(65, 100)], FLOOR)[1] == "met"


def test_a_latency_must_not_be_larger():
    name = "suite: accept p99 ms at half"
    assert verdict([{name: 50.0}], "accept p99 at half of that rate")[1] == "met"
    assert verdict([{name: 50.1}], "accept p99 at half of that rate")[1] == "NOT met"


def test_memory_at_rest_is_that_of_the_largest_service():
    rounds = [{"memory at rest: users": 81.0, "memory at rest: orders": 40.0, "memory after load: orders": 99.0}]
    value, result = verdict(rounds, "memory at rest, the largest service")
    assert (value.median, result) == (81.0, "NOT met")


def test_a_goal_without_figures_is_not_measured():
    assert {result for _, _, result in judge([{}])} == {"not measured"}


def test_rounds_without_a_figure_do_not_count_for_it():
    rounds = [{"a": 1.0}, {"a": 3.0, "b": 5.0}, {"a": 2.0}]
    found = figures(rounds)
    assert (found["a"].median, found["b"].runs) == (2.0, 1)
    assert str(spread([1.0, 2.0, 300.0])) == "2 (1 to 300)"


TWO_GATEWAYS = "GET /orders/{id}, two gateways / one, where a core is free"


def gateways(ratio, idle):
    return {
        "gateways: GET /orders/{id}/s, one": 100.0,
        "gateways: GET /orders/{id}/s, two": 100.0 * ratio,
        "gateways: cores left idle, one": idle,
    }


def test_the_goal_of_two_gateways_needs_a_free_core():
    assert verdict([gateways(1.2, 0.3)], TWO_GATEWAYS)[1] == "no core free"
    assert verdict([gateways(1.2, 1.1)], TWO_GATEWAYS)[1] == "NOT met"
    assert verdict([gateways(1.7, 1.1)], TWO_GATEWAYS)[1] == "met"


def test_growth_of_memory_is_that_of_the_service_that_grows_most():
    rounds = [{"memory: MiB an hour, orders": 2.1, "memory: MiB an hour, users": -3.0}]
    value, result = verdict(rounds, "growth of memory under load, the service that grows most")
    assert (value.median, result) == (2.1, "NOT met")
