"""Metrics as Prometheus reads them: over HTTP, with the parser of its client library."""

import socket
from contextlib import ExitStack

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support import eventually


def free_ports(count):
    """Ports that are free now."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


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
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5)
    except httpx.TransportError:
        return None  # it does not listen yet
