"""`nameko run <service>.service` starts the service and nothing else."""

import pytest
from nameko.cli.utils import import_services

from contracts.services import PROCESSES


@pytest.mark.parametrize("service", PROCESSES)
def test_nameko_finds_one_service_in_the_module(service):
    """Nameko starts every class with entrypoints that is an attribute of the module."""
    assert [one.name for one in import_services(f"{service}.service")] == [service]
