"""Functions that parse settings of config.yml: one setting may be a list, or differ in production."""

from collections.abc import Mapping
from typing import Any

from nameko import config

ENVIRONMENTS = ("development", "test", "production")


class UnknownEnvironment(ValueError):
    """ENVIRONMENT is not one of ENVIRONMENTS."""


def is_production(config: Mapping[str, Any]) -> bool:
    """Tell whether ENVIRONMENT is production. Raises UnknownEnvironment for a value outside ENVIRONMENTS."""
    environment = config.get("ENVIRONMENT", "development")
    if environment not in ENVIRONMENTS:
        raise UnknownEnvironment(f"ENVIRONMENT is {environment!r}; it must be one of {', '.join(ENVIRONMENTS)}")
    return bool(environment == "production")


def by_environment(name: str, default: Any = None) -> Any:
    """Return the value of the setting `name` under its key `production` or, in other environments, `elsewhere`."""
    where = "production" if is_production(config) else "elsewhere"
    return config.get(name, {}).get(where, default)


def listed(setting: Any) -> list[str]:
    """Return a setting as a list; it may be a list or a comma-separated string."""
    parts = setting.split(",") if isinstance(setting, str) else setting or []
    return [part.strip() for part in parts if part.strip()]


def switched_on(setting: Any) -> bool:
    """Tell whether a setting is on: `true`, `yes`, `on` or `1`. Raises ValueError for what is neither on nor off."""
    text = str(setting).strip().lower()
    if text not in {"true", "yes", "on", "1", "false", "no", "off", "0", "", "none"}:
        raise ValueError(f"{setting!r} is neither on nor off")
    return text in {"true", "yes", "on", "1"}
