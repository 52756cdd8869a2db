import pytest

from contracts.services import PROCESSES
from deploy.config_file import ROOT
from deploy.local import service_environment

CONFIG = ROOT / "config.yml"
ADDRESSES = ("AMQP_URI", "DATABASE_URL", "OWNER_DATABASE_URL", "REDIS_URL", "METRICS_ADDRESS")
OWN = {f"{name}_{what}": name for name in ("ORDERS", "USERS", "OPERATOR", "GATEWAY") for what in ADDRESSES}
SHARED = {"AMQP_URI": "all", "REDIS_URL": "r"}
OTHERS = {
    "ORDER_SUITE_ENV": "var/env",
    "ADMINISTRATOR_DATABASE_URL": "postgresql://postgres:secret@h/postgres",
    "ORDERS_BROKER_PASSWORD": "secret",
    "USERS_REDIS_PASSWORD": "secret",
    "RABBITMQ_PASSWORD": "secret",
    "DEMO_PASSWORD": "secret",
    "AWS_SECRET_ACCESS_KEY": "of another program of the user",
    "SSH_AUTH_SOCK": "/tmp/agent",
}
SYSTEM = {"PATH": "/bin", "LANG": "C", "LC_ALL": "C.UTF-8", "PYTHONPATH": "/clone", "PAYMENT_LIMIT": "5"}


@pytest.mark.parametrize("service", PROCESSES)
def test_a_service_gets_its_own_addresses_and_settings_only(service):
    given = service_environment.of(service, SHARED | OWN | OTHERS | SYSTEM, CONFIG)
    name = service.upper()
    own = {f"{name}_{what}": name for what in ADDRESSES if what != "OWNER_DATABASE_URL" and f"{name}_{what}" in OWN}
    # A broker or Redis that was given may have one user for all services.
    assert given == own | SYSTEM | ({} if own else SHARED)


@pytest.mark.parametrize(
    ("variable", "services"),
    [("JWT_PRIVATE_KEY_FILE", {"users"}), ("JWT_PUBLIC_KEY_FILE", {"users", "gateway"})],
)
def test_only_who_uses_a_key_learns_where_it_is(variable, services):
    knowing = {one for one in PROCESSES if service_environment.of(one, {variable: "/keys"}, CONFIG)}
    assert knowing == services


def test_every_setting_that_config_yml_names_can_be_set():
    settings = service_environment.settings(CONFIG)
    assert {"LOG_LEVEL", "RETRY_DELAYS_MS", "GATEWAY_ADDRESS"} <= settings
    for service in PROCESSES:
        allowed = service_environment.of(service, dict.fromkeys(settings, "x"), CONFIG)
        others = {name for name, services in service_environment.ONLY_FOR.items() if service not in services}
        assert allowed.keys() == settings - others


def test_a_test_may_name_further_variables():
    assert service_environment.of("users", {"CRASH_FOLDER": "x"}, CONFIG, ["CRASH_FOLDER"]) == {"CRASH_FOLDER": "x"}
