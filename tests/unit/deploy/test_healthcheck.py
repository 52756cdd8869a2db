"""The exit code for Docker and Kubernetes: it depends on the health that the service reports."""

import pytest

from deploy import healthcheck

WELL = {"status": "ok", "parts": {"database": "ok", "redis": "down: reads are slower"}}
FAILING = {"status": "failing", "parts": {"database": "does not respond", "redis": "ok"}}


@pytest.mark.parametrize(
    ("report", "code", "error"),
    [
        (WELL, 0, ""),
        (FAILING, 1, "orders: database: does not respond\n"),
        (TimeoutError(), 1, "orders did not respond within 3 s\n"),
        (ConnectionRefusedError("no broker"), 1, "orders: no broker\n"),
    ],
    ids=["well", "failing", "silent", "no broker"],
)
def test_a_service_is_healthy_if_it_reports_so(monkeypatch, capsys, report, code, error):
    def ask(_amqp_uri, _service, *, timeout):
        if isinstance(report, Exception):
            raise report
        return report

    monkeypatch.setattr(healthcheck, "ask", ask)
    assert healthcheck.main(["orders"]) == code
    assert capsys.readouterr().err == error
    assert healthcheck.is_healthy("amqp://", "orders") == (code == 0)


def test_a_degraded_gateway_is_healthy_and_its_report_tells_what_is_down():
    parts = {
        "users": {"service": "down"},
        "orders": {"database": "down", "redis": "down"},
        "catalog": {"redis": "down"},
    }
    assert healthcheck.parts_down({"status": "degraded", "services": parts}) == ["users", "orders.database"]
