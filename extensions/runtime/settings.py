"""Settings of config.yml that are more than one plain value."""

from collections.abc import Mapping
from typing import Any

from nameko import config

ENVIRONMENTS = ("development", "test", "production")


class UnknownEnvironment(ValueError):
    """ENVIRONMENT is none of ENVIRONMENTS."""


def is_production(config: Mapping[str, Any]) -> bool:
    """Tell whether this is production. Raises UnknownEnvironment for a word that only looks as if it were."""
    environment = config.get("ENVIRONMENT", "development")
    if environment not in ENVIRONMENTS:
        raise UnknownEnvironment(f"ENVIRONMENT is {environment!r}, and has to be one of {', '.join(ENVIRONMENTS)}")
    return bool(environment == "production")


def by_environment(name: str, default: Any = None) -> Any:
    """Return what the setting `name` has under `production`, or under `elsewhere` where this is not production."""
    where = "production" if is_production(config) else "elsewhere"
    return config.get(name, {}).get(where, default)


def listed(setting: Any) -> list[str]:
    """Return a setting that is a list, or one line with commas in it."""
    parts = setting.split(",") if isinstance(setting, str) else setting or []
    return [part.strip() for part in parts if part.strip()]
