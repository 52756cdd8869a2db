"""The HTTP metrics, also for invalid requests."""

from contextlib import contextmanager

import httpx
import pytest

from extensions.http.message.request import Access
from extensions.http.routing.dispatcher import HttpServer
from extensions.http.routing.route import route
from qa.support.free_ports import free_ports
from tests.http_service import listening
from tests.scrape import Scrape

ID = "018f2b9e-0000-7000-8000-000000000001"


class Shelf:
    name = "shelf"

    @route("GET", "/things/{thing_id}", aliases=("/thing/{thing_id}",), access=Access.ANYONE)
    def get_thing(self, request, thing_id):
        if str(thing_id) == ID:
            return {"id": str(thing_id)}
        raise LookupError(thing_id)


@pytest.fixture
def served(tmp_path):
    """Start the service. Yields its container, a client, and a function that scrapes its metrics."""

    @contextmanager
    def served(**settings):
        (port,) = free_ports(1)
        settings |= {"METRICS_ADDRESSES": {"shelf": f"127.0.0.1:{port}"}}
        with listening(Shelf, tmp_path, **settings) as container:
            base = f"http://127.0.0.1:{container.address[1]}"
            with httpx.Client(base_url=base, timeout=5, verify=False) as client:
                yield container, client, lambda: Scrape(port)

    return served


def test_requests_are_counted_by_the_path_template_of_their_route(served):
    with served() as (_, client, scrape):
        for path in (f"/things/{ID}", f"/thing/{ID}", f"/things/{ID}/?a=b", "/things/x", f"/things/{ID[:-1]}2"):
            client.get(path)
        client.head(f"/things/{ID}")
        client.get("/metrics")
        seen = scrape()
    counted = "suite_http_requests_total"
    assert seen(counted, method="GET", route="/things/{thing_id}", status="200") == 2
    assert seen(counted, method="HEAD", route="/things/{thing_id}", status="200") == 1
    assert seen(counted, route="/things/{thing_id}", status="400") == 2  # no UUID, an unknown query field
    assert seen(counted, route="/things/{thing_id}", status="500") == 1
    assert seen(counted, method="GET", route="none", status="404") == 1
    assert seen("suite_http_request_seconds_count", method="GET", route="/things/{thing_id}") == 5
    assert 0 < seen("suite_http_request_seconds_sum", route="/things/{thing_id}") < 5
    assert seen("suite_http_requests_refused_total") == 0


def test_clients_cannot_create_new_series(served):
    with served() as (_, client, scrape):
        for number in range(20):
            client.request(f"BREW{number}", f"/things/{ID}")
            client.get(f"/{number}")
        seen = scrape()
    assert seen("suite_http_requests_total", method="other") == 20
    assert seen("suite_http_requests_total", method="GET", route="none") == 20
    assert len([sample for sample in seen.samples if sample.name == "suite_http_requests_total"]) == 2
    assert not [value for value in seen.label_values if ID in value]


def test_requests_in_flight_and_connections_are_gauges(served):
    with served() as (container, client, scrape):
        client.get(f"/things/{ID}")
        endpoint = next(iter(container.shared_extensions[HttpServer]._endpoints.values()))
        endpoint._bulkhead.acquire(1.0)
        during = scrape()
        endpoint._bulkhead.release()
        after = scrape()
    assert during("suite_http_requests_in_flight", kind="usual") == 1
    assert during("suite_http_requests_in_flight", kind="probe") == 0
    assert after("suite_http_requests_in_flight") == 0
    assert after("suite_http_connections") == 1


def test_refusals_are_counted_by_reason(served):
    with served(HTTP_MAX_REQUESTS=0) as (_, client, scrape):
        assert client.get(f"/things/{ID}").status_code == 503
        seen = scrape()
    assert seen("suite_http_requests_total", route="/things/{thing_id}", status="503") == 1
    assert seen("suite_http_requests_refused_total", reason="overload") == 1
    assert seen("suite_http_requests_refused_total") == 1
