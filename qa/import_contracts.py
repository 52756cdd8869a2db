"""Check the import contracts of pyproject.toml for every service of the registry: `python -m qa.import_contracts`.

It is import-linter (`lint-imports`), with two placeholders: a list item with `{service}` in it is repeated for each
service of contracts/services.py, and `{services}` becomes all of their names with ` | ` between them.
"""

import sys
from typing import Any

from importlinter import configuration
from importlinter.adapters.user_options import TomlFileUserOptionReader
from importlinter.application.app_config import settings
from importlinter.application.use_cases import lint_imports
from importlinter.application.user_options import UserOptions

from contracts.services import SERVICES


class Reader(TomlFileUserOptionReader):
    """Reads pyproject.toml and fills in the services."""

    def read_options(self, config_filename: str | None = None) -> UserOptions | None:
        """Return the options with the placeholders replaced."""
        options = super().read_options(config_filename)
        if options is None:
            return None
        contracts = [filled_in(contract) for contract in options.contracts_options]
        return UserOptions(filled_in(options.session_options), contracts)


def filled_in(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of one contract with the placeholders replaced."""
    return {key: _expand(value) if isinstance(value, list) else value for key, value in options.items()}


def _expand(items: list[Any]) -> list[Any]:
    expanded: list[Any] = []
    for item in items:
        if isinstance(item, str) and "{service}" in item:
            expanded += [item.replace("{service}", service) for service in SERVICES]
        elif isinstance(item, str):
            expanded.append(item.replace("{services}", " | ".join(SERVICES)))
        else:
            expanded.append(item)
    return expanded


def main() -> int:
    """The command line."""
    configuration.configure()
    settings.configure(USER_OPTION_READERS={"toml": Reader()})
    return 0 if lint_imports(no_logo=True) else 1


if __name__ == "__main__":
    sys.path.insert(0, "")
    sys.exit(main())
