"""The import contracts apply to every service of the registry, including new ones."""

import tomllib
from pathlib import Path

from contracts.services import SERVICES
from qa.import_contracts import filled_in

OPTIONS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["importlinter"]


def test_placeholders_become_the_services():
    options = filled_in({"modules": ["gateway", "{service}"], "layers": ["gateway | {services}"], "name": "{service}"})
    assert options == {
        "modules": ["gateway", *SERVICES],
        "layers": [" | ".join(["gateway", *SERVICES])],
        "name": "{service}",
    }


def test_every_service_is_checked_and_none_is_listed_by_name():
    assert set(SERVICES) <= set(filled_in(OPTIONS)["root_packages"])
    listed = [
        item
        for contract in [OPTIONS, *OPTIONS["contracts"]]
        for values in contract.values()
        if isinstance(values, list)
        for item in values
        if item in SERVICES
    ]
    assert listed == []
