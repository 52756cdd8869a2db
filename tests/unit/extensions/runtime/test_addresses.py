"""Addresses of each service: from the configuration, else from the environment, else the default of development."""

import os

import pytest

from contracts.services import PROCESSES, SERVICES
from extensions.runtime import addresses

CONFIG = {"AMQP_URI": "pyamqp://all", "REDIS_URL": "redis://all"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """An environment without any address."""
    for name in [name for name in os.environ if name.endswith(("_AMQP_URI", "_URL", "METRICS_ADDRESS"))]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("service", SERVICES)
def test_the_defaults_are_those_of_a_machine_for_development(service):
    assert addresses.amqp_uri(CONFIG, service) == "pyamqp://all"
    assert addresses.redis_url(CONFIG, service) == "redis://all"
    own = f"postgresql+psycopg2://{service}:{service}@127.0.0.1:5432/{service}"
    assert addresses.database_url(CONFIG, service) == addresses.owner_database_url(CONFIG, service) == own
    assert not addresses.own_amqp_uri(CONFIG, service)
    assert not addresses.own_redis_url(CONFIG, service)
    assert not addresses.metrics_address(CONFIG, service)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("variable", "address"),
    [
        (addresses.uri_variable, addresses.amqp_uri),
        (addresses.redis_variable, addresses.redis_url),
        (addresses.database_variable, addresses.database_url),
        (addresses.owner_variable, addresses.owner_database_url),
        (addresses.metrics_variable, addresses.metrics_address),
    ],
)
def test_each_service_has_a_variable_of_its_own(environment, service, variable, address):
    environment.setenv(variable(service), "its own")
    assert [one for one in SERVICES if address(CONFIG, one) == "its own"] == [service]


def test_the_variables_are_named_after_the_service():
    assert addresses.uri_variable("orders") == "ORDERS_AMQP_URI"
    assert addresses.redis_variable("orders") == "ORDERS_REDIS_URL"
    assert addresses.database_variable("orders") == "ORDERS_DATABASE_URL"
    assert addresses.owner_variable("orders") == "ORDERS_OWNER_DATABASE_URL"
    assert addresses.metrics_variable("orders") == "ORDERS_METRICS_ADDRESS"


@pytest.mark.parametrize("service", PROCESSES)
def test_one_variable_gives_all_services_an_address_for_metrics(environment, service):
    environment.setenv("METRICS_ADDRESS", "0.0.0.0:9100")
    assert addresses.metrics_address(CONFIG, service) == "0.0.0.0:9100"
    environment.setenv(addresses.metrics_variable(service), "")
    assert not addresses.metrics_address(CONFIG, service)


def test_the_configuration_wins_over_the_environment(environment):
    environment.setenv("ORDERS_DATABASE_URL", "of the environment")
    config = {"DB_URIS": {"orders:Base": "of the configuration"}}
    assert addresses.database_url(config, "orders") == "of the configuration"


def test_a_service_that_is_not_registered_has_no_database():
    with pytest.raises(addresses.UnknownService, match=r"contracts/services\.py"):
        addresses.database_url(CONFIG, "parcels")
