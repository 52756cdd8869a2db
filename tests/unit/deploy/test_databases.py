"""Database accounts, as far as no server is needed. tests/service/test_roles.py tests the rest."""

import pytest
from nameko import config

from contracts.services import SERVICES
from deploy import databases
from deploy.databases import Database, DatabasesError, check_passwords, configured
from deploy.server_users import ADMINISTRATOR_DATABASE

ADDRESS = "postgresql+psycopg2://{}:{}@db:5432/orders"
ADMINISTRATOR = ADDRESS.format("postgres", "r8vq")


@pytest.fixture
def settings(monkeypatch):
    """Restore the configuration after the test: the process has only one."""
    monkeypatch.setattr(config, "data", dict(config.data))


def orders(password="f3a9c1", owner_password="b77e02"):
    return Database("orders", ADDRESS.format("orders", password), ADDRESS.format("orders_owner", owner_password))


def test_private_passwords_are_accepted_in_production():
    check_passwords(ADMINISTRATOR, [orders()])


@pytest.mark.parametrize(
    ("administrator", "database", "named"),
    [
        (ADDRESS.format("postgres", "postgres"), orders(), ADMINISTRATOR_DATABASE),
        (ADMINISTRATOR, orders(password="orders"), "ORDERS_DATABASE_URL"),
        (ADMINISTRATOR, orders(owner_password="orders_owner"), "ORDERS_OWNER_DATABASE_URL"),
    ],
)
def test_a_default_password_is_refused_in_production(administrator, database, named):
    with pytest.raises(DatabasesError, match=f"give {named} passwords"):
        check_passwords(administrator, [database])


def test_the_command_refuses_before_it_connects(settings, monkeypatch, capsys):
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv(ADMINISTRATOR_DATABASE, ADDRESS.format("postgres", "postgres"))
    assert databases.main() == 1
    assert "ENVIRONMENT is production" in capsys.readouterr().err


def test_without_an_administrator_nothing_is_created(monkeypatch):
    monkeypatch.delenv(ADMINISTRATOR_DATABASE, raising=False)
    assert databases.main() == 0


def test_a_database_without_an_owners_address_belongs_to_its_service(settings, monkeypatch):
    for service in SERVICES:
        monkeypatch.delenv(f"{service.upper()}_OWNER_DATABASE_URL", raising=False)
    monkeypatch.setenv("ORDERS_OWNER_DATABASE_URL", "postgresql+psycopg2://somebody@db/orders")
    found = configured()
    assert set(found) == set(SERVICES)
    assert found["users"].owner_url == found["users"].url
    assert found["orders"].owner_url == "postgresql+psycopg2://somebody@db/orders"
    assert "somebody" not in found["orders"].url
