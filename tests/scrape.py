"""Metrics as Prometheus reads them: over HTTP, with the parser of its client library."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support import eventually


class Scrape:
    """One response of `/metrics`. `scrape("suite_http_requests_total", status="201")` is the sum over these labels."""

    def __init__(self, port):
        response = eventually(lambda: _get(port))
        assert response.status_code == 200, response.text
        self.text = response.text
        self.families = list(text_string_to_metric_families(self.text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def __call__(self, name, **labels):
        found = [one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items()]
        return sum(found) if found else None

    @property
    def label_values(self):
        """All values of all labels."""
        return {value for sample in self.samples for value in sample.labels.values()}


def _get(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5, verify=False)
    except httpx.TransportError:
        return None  # it does not listen yet
