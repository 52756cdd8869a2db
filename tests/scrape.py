"""Metrics as Prometheus gets them: over HTTP, read by the parser of its own library."""

import socket
from contextlib import ExitStack

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support import eventually


def free_ports(count):
    """Ports that nobody listens on at the moment."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


class Scrape:
    """One answer of `/metrics`: `scrape("suite_http_requests_total", status="201")` adds up what has these labels."""

    def __init__(self, port):
        answer = eventually(lambda: _get(port))
        assert answer.status_code == 200, answer.text
        self.text = answer.text
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
        return None  # not yet
