"""The report of `make run`, and the settings that it shows."""

import os
import subprocess
import sys

import pytest

from deploy import require_running
from deploy.config_file import ROOT
from deploy.local import launcher, ports, report

URL = "http://127.0.0.1:8001"
ENV = {
    "GATEWAY_URL": URL,
    "GATEWAY_ADDRESS": "127.0.0.1:8001",
    "AMQP_URI": "pyamqp://guest:guest@127.0.0.1:20672//",
    "REDIS_URL": "redis://127.0.0.1:21379/0",
    "ORDERS_DATABASE_URL": "postgresql+psycopg2://orders:orders@127.0.0.1:20432/orders",
    "GATEWAY_METRICS_ADDRESS": "127.0.0.1:24100-24109",
}


def test_the_report_states_from_where_the_gateway_is_reachable():
    assert "from this machine only" in report.render(ENV)
    text = report.render({**ENV, "GATEWAY_ADDRESS": "0.0.0.0:8001"})
    assert "open to the network on 0.0.0.0:8001" in text
    assert "from this machine only" not in text


def test_the_report_shows_no_password_of_a_server():
    env = ENV | {"AMQP_URI": "pyamqp://guest:s3cret@h:1//", "REDIS_URL": "redis://:s3cret@h:2/0"}
    text = report.render(env | {"ORDERS_DATABASE_URL": "postgresql+psycopg2://orders:s3cret@h:3/orders"})
    assert "s3cret" not in text
    assert all(address in text for address in ("pyamqp://h:1//", "redis://h:2/0", "postgresql://h:3/orders"))


@pytest.mark.parametrize(
    ("address", "loopback", "reachable"),
    [
        ("127.0.0.1:8000", True, ("127.0.0.1", 8000)),
        ("localhost:8000", True, ("localhost", 8000)),
        ("0.0.0.0:8000", False, ("127.0.0.1", 8000)),
        (":8000", False, ("127.0.0.1", 8000)),
        ("192.0.2.7:8000", False, ("192.0.2.7", 8000)),
    ],
)
def test_an_address_to_listen_on(address, loopback, reachable):
    assert ports.is_loopback(address) is loopback
    assert ports.reachable(address) == reachable


@pytest.fixture
def settings(monkeypatch):
    def chosen(**environ):
        for name in ("GATEWAY_HOST", "GATEWAY_ADDRESS", launcher.OURS):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(ports, "claim_free", lambda start, *_, **__: start)
        return launcher.Launcher()._settings({})

    return chosen


def test_the_gateway_listens_on_loopback_unless_a_setting_opens_it(settings):
    assert settings()["GATEWAY_ADDRESS"] == "127.0.0.1:8000"
    opened = settings(GATEWAY_HOST="0.0.0.0")
    assert (opened["GATEWAY_ADDRESS"], opened["GATEWAY_URL"]) == ("0.0.0.0:8000", "http://127.0.0.1:8000")
    given = settings(GATEWAY_ADDRESS="192.0.2.7:9000")
    assert (given["GATEWAY_ADDRESS"], given["GATEWAY_URL"]) == ("192.0.2.7:9000", "http://192.0.2.7:9000")


def test_the_request_file_for_editors_has_the_address_of_this_run(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "REQUESTS_FILE", tmp_path / "api.http")
    suite = launcher.Launcher()
    suite.env = ENV
    suite._write_requests()
    assert f"@host = {URL}\n" in (tmp_path / "api.http").read_text()
    assert "127.0.0.1:8000" not in (tmp_path / "api.http").read_text()


@pytest.mark.parametrize("module", ["deploy.shell", "deploy.consistency"])
def test_a_command_reports_a_stopped_suite_in_one_sentence(module):
    port = ports.first_free(29_000)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module],
        cwd=ROOT,
        env=os.environ | {"AMQP_URI": f"pyamqp://guest:guest@127.0.0.1:{port}//"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert f"The suite is not running (RabbitMQ at 127.0.0.1:{port} accepts no connection)" in done.stderr
    assert "guest:guest" not in done.stderr


def test_the_sentence_names_a_missing_var_env(tmp_path, monkeypatch):
    monkeypatch.setattr(require_running, "ENV_FILE", tmp_path / "env")
    monkeypatch.delenv("AMQP_URI", raising=False)
    assert "there is no file var/env" in str(require_running.NotRunning("pyamqp://guest:guest@127.0.0.1:5672//"))
