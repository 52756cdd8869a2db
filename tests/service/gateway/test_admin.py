"""/admin across services: lists are merged, and a dead letter is found in the service that has it."""

from unittest.mock import Mock, call

import pytest
from nameko import config

from contracts.errors import DeadLetterNotFound, InvalidState, ServiceUnavailable, UpstreamTimeout
from contracts.ids import new_id
from contracts.services import SERVICES

USER = new_id()
ACTOR = {"user_id": str(USER), "roles": ["customer", "admin"]}
LETTER = str(new_id())
ROUTES = [
    ("GET", "/admin/sagas"),
    ("GET", "/admin/dead-letters"),
    ("POST", f"/admin/dead-letters/{LETTER}/replay"),
    ("DELETE", f"/admin/dead-letters/{LETTER}"),
    ("GET", "/admin/dead-letters/groups"),
    ("POST", "/admin/dead-letters/replay"),
    ("POST", "/admin/dead-letters/discard"),
    ("GET", "/admin/refused-events"),
    ("GET", "/admin/consistency"),
    ("GET", "/admin/health"),
]


@pytest.fixture
def services():
    services = Mock()
    services.users.list_changed = lambda **_asked: {"items": []}  # called by a timer, so it is not counted as a call
    return services


@pytest.fixture
def api(gateway, services):
    return gateway(services=services)


@pytest.fixture
def admin(login):
    return login("customer", "admin", user_id=USER)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_only_an_administrator_has_access(api, services, login, method, path):
    for headers, status, code in (({}, 401, "NOT_AUTHENTICATED"), (login("customer"), 403, "PERMISSION_DENIED")):
        refused = api.request(method, path, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert refused.headers["content-type"] == "application/problem+json"
    assert services.mock_calls == []


@pytest.mark.parametrize(
    ("query", "asked"), [("", {}), ("?stuck=true", {"stuck": True}), ("?limit=5&cursor=c", {"limit": 5, "cursor": "c"})]
)
def test_sagas_are_listed_by_orders(api, services, admin, query, asked):
    services.orders.list_sagas.return_value = {"items": [{"id": LETTER}], "next_cursor": "n"}
    response = api.get("/admin/sagas" + query, headers=admin)
    assert response.json()["items"] == [{"id": LETTER}]
    assert 'rel="next"' in response.headers["link"]
    assert services.orders.list_sagas.call_args_list == [call(**asked, actor=ACTOR)]


@pytest.mark.parametrize("path", ["/admin/sagas?stuck=maybe", "/admin/dead-letters?service=gateway",
                                  "/admin/dead-letters?limit=101", "/admin/consistency?since=yesterday"])  # fmt: skip
def test_invalid_parameters_are_refused(api, services, admin, path):
    response = api.get(path, headers=admin)
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
    assert services.mock_calls == []


class Letters:
    """Dead letters of one service, paginated like those of the services."""

    def __init__(self):
        self.ids = []

    def list(self, limit=20, cursor=None, **_others):
        older = sorted((each for each in self.ids if cursor is None or each < cursor), reverse=True)
        items = [{"id": each} for each in older[:limit]]
        return {"items": items, "next_cursor": items[-1]["id"] if len(older) > limit else None}


@pytest.fixture
def letters(services):
    """The dead letters of every service, by service name."""
    kept = {name: Letters() for name in SERVICES}
    for name in SERVICES:
        getattr(services, name).list_dead_letters = Mock(side_effect=kept[name].list)
    return kept


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_the_pages_of_all_services_are_merged_into_one_list(api, letters, admin, limit):
    ids = [str(new_id()) for _ in range(23)]
    for number, each in enumerate(ids):
        letters[("orders", "inventory", "payments", "orders")[number % 4]].ids.append(each)
    found, cursor = [], None
    while True:
        path = f"/admin/dead-letters?limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        page = api.get(path, headers=admin).json()
        assert len(page["items"]) <= limit
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        letters["users"].ids.append(str(new_id()))  # new dead letters are newer and do not shift the pages
        if cursor is None:
            break
    assert found == ids[::-1]


def test_filters_are_passed_on(api, services, letters, admin):
    letters["orders"].ids.append(LETTER)
    path = "/admin/dead-letters?service=orders&queue=q&event=order.created&replayed=true"
    assert [item["id"] for item in api.get(path, headers=admin).json()["items"]] == [LETTER]
    asked = call(queue="q", event="order.created", replayed=True, actor=ACTOR)
    assert services.orders.list_dead_letters.call_args_list == [asked]
    services.users.list_dead_letters.assert_not_called()


def test_an_incomplete_list_is_an_error(api, services, letters, admin):
    services.payments.list_dead_letters.side_effect = ServiceUnavailable("The payments service is not running.")
    response = api.get("/admin/dead-letters", headers=admin)
    assert response.status_code == 503
    assert "payments" in response.json()["detail"]
    assert api.get("/admin/dead-letters?service=orders", headers=admin).status_code == 200


def answers(services, **by_name):
    """Set the result of a replay in every service; services that are not named do not have the dead letter."""
    for name in SERVICES:
        answer = by_name.get(name, DeadLetterNotFound())
        getattr(services, name).replay_dead_letter = Mock(side_effect=[answer])


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ({"inventory": {"id": LETTER}}, 202),
        ({"inventory": {"id": LETTER}, "users": ServiceUnavailable()}, 202),
        ({"inventory": InvalidState("replayed already"), "users": ServiceUnavailable()}, 409),
        ({"users": ServiceUnavailable()}, 503),
        ({"users": UpstreamTimeout()}, 504),
        ({"payments": UpstreamTimeout(), "catalog": ServiceUnavailable(), "users": ServiceUnavailable()}, 504),
        ({}, 404),
    ],
    ids=[
        "replayed",
        "another is down",
        "replayed before",
        "one is down",
        "one is silent",
        "others are down",
        "unknown",
    ],
)
def test_a_replay_finds_the_service_of_the_dead_letter(api, services, admin, known, status):
    answers(services, **known)
    response = api.post(f"/admin/dead-letters/{LETTER}/replay/", headers=admin)
    assert response.status_code == status, response.text
    if status == 202:
        assert response.json() == {"id": LETTER}
    for name in SERVICES:
        asked = call(dead_letter_id=LETTER, actor=ACTOR)
        assert getattr(services, name).replay_dead_letter.call_args_list == [asked]


def test_a_replay_can_name_the_service(api, services, admin):
    answers(services, orders={"id": LETTER}, users=ServiceUnavailable())
    assert api.post(f"/admin/dead-letters/{LETTER}/replay?service=orders", headers=admin).status_code == 202
    services.users.replay_dead_letter.assert_not_called()
    assert api.post("/admin/dead-letters/42/replay", headers=admin).status_code == 400


def test_a_discard_finds_the_service_of_the_dead_letter(api, services, admin):
    for name in SERVICES:
        found = [None] if name == "payments" else [DeadLetterNotFound()]
        getattr(services, name).discard_dead_letter = Mock(side_effect=found)
    assert api.delete(f"/admin/dead-letters/{LETTER}", headers=admin).status_code == 204


def result(dead_letter_id, code=None, outcome="discarded"):
    return {"id": dead_letter_id, "outcome": "failed" if code else outcome, "code": code, "detail": None}


def test_several_are_discarded_in_the_services_that_have_them(api, services, admin):
    ids = [str(new_id()) for _ in range(4)]
    known = {"orders": {ids[0]: None}, "inventory": {ids[1]: None, ids[2]: "INVALID_STATE"}}
    for name in SERVICES:
        found = known.get(name, {})
        items = [result(one, found.get(one, "DEAD_LETTER_NOT_FOUND")) for one in ids]
        getattr(services, name).discard_dead_letters = Mock(return_value={"items": items, "remaining": 0})
    services.users.discard_dead_letters.side_effect = ServiceUnavailable("down")
    response = api.post("/admin/dead-letters/discard", json={"ids": ids}, headers=admin)
    assert response.status_code == 200, response.text
    codes = [(item["id"], item["code"]) for item in response.json()["items"]]
    # The last one may be in the service that is down.
    assert codes == [(ids[0], None), (ids[1], None), (ids[2], "INVALID_STATE"), (ids[3], "SERVICE_UNAVAILABLE")]
    assert services.orders.discard_dead_letters.call_args_list == [call(ids=ids, actor=ACTOR)]


def test_a_group_is_discarded_by_its_service(api, services, admin):
    services.orders.discard_dead_letters.return_value = {"items": [result(LETTER)], "remaining": 7}
    response = api.post("/admin/dead-letters/discard", json={"group": "orders-1"}, headers=admin)
    assert response.json() == {"items": [result(LETTER)], "remaining": 7}
    services.payments.discard_dead_letters.assert_not_called()
    refused = api.post("/admin/dead-letters/discard", json={"group": "nobody-1"}, headers=admin)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "group")


def test_the_groups_of_all_services_are_one_list(api, services, admin):
    for number, name in enumerate(SERVICES):
        getattr(services, name).group_dead_letters = Mock(return_value=[{"group": name, "count": number}])
    response = api.get("/admin/dead-letters/groups", headers=admin)
    assert [group["group"] for group in response.json()["items"]] == list(SERVICES)[::-1]


def test_refused_events_of_all_services_are_one_list(api, services, admin):
    ids = [str(new_id()) for _ in SERVICES]
    for name, one in zip(SERVICES, ids, strict=True):
        page = {"items": [{"id": one}], "next_cursor": None}
        getattr(services, name).list_refused_events = Mock(return_value=page)
    found = api.get("/admin/refused-events", headers=admin).json()
    assert [item["id"] for item in found["items"]] == ids[::-1]
    api.get("/admin/refused-events?service=orders", headers=admin)
    assert services.users.list_refused_events.call_count == 1


def test_consistency_is_checked_by_orders_with_the_whole_time_budget(api, services, admin):
    seen = {"at_rest": True, "in_flight": 0, "checks": [{"name": "orders_decided", "count": 0, "ids": []}]}
    services.within.return_value.orders.check_consistency.return_value = seen
    assert api.get("/admin/consistency/?since=2026-01-31T08:30:00Z", headers=admin).json() == seen
    (seconds,) = services.within.call_args.args
    assert 0.8 * config["HTTP_DEADLINE_SECONDS"] < seconds <= config["HTTP_DEADLINE_SECONDS"]
    asked = services.within.return_value.orders.check_consistency.call_args.kwargs
    assert asked == {"since": "2026-01-31T08:30:00.000000Z", "actor": ACTOR}


def test_the_backlog_of_each_service_and_the_circuits_of_the_gateway_are_shown(api, services, admin):
    backlog = {"outbox": 3, "outbox_oldest_seconds": 1.5, "refused_events": 1, "dead_letters": 2, "circuits": []}
    within = services.within.return_value
    within.operated = lambda name: getattr(within, name)
    for name in SERVICES:
        getattr(within, name).report_backlog.return_value = backlog
    within.payments.report_backlog.side_effect = UpstreamTimeout
    seen = api.get("/admin/health", headers=admin).json()
    assert seen["services"] == {name: None if name == "payments" else backlog for name in SERVICES}
    assert isinstance(seen["circuits"], list)
