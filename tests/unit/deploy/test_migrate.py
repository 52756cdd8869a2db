"""Every service with a database has migrations, and `make migrate` names a service that has none."""

import pytest

from contracts.services import SERVICES
from deploy import migrate
from deploy.databases import Database
from deploy.migrate import MigrationError, revisions, upgrade

ADVICE = r"loyalty has no migration: create loyalty/migrations/0001_\.\.\.\.py \(CONTRIBUTING\.md, A service\)"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_a_first_revision(service):
    found = [path.name[:4] for path in revisions(service)]
    assert found[:1] == ["0001"], f"create {service}/migrations/0001_....py (CONTRIBUTING.md, A service)"


def test_a_service_without_migrations_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(migrate, "ROOT", tmp_path)
    with pytest.raises(MigrationError, match=ADVICE):
        upgrade(Database("loyalty", "", ""))
    (tmp_path / "loyalty/migrations").mkdir(parents=True)
    (tmp_path / "loyalty/migrations/__init__.py").touch()
    with pytest.raises(MigrationError, match=ADVICE):
        upgrade(Database("loyalty", "", ""))
