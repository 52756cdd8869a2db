"""Settings of config.yml that are more than one plain value."""

from typing import Any

from nameko import config

from extensions.production import is_production


def by_environment(name: str, default: Any = None) -> Any:
    """Return what the setting `name` has under `production`, or under `elsewhere` where this is not production."""
    where = "production" if is_production(config) else "elsewhere"
    return config.get(name, {}).get(where, default)


def listed(setting: Any) -> list[str]:
    """Return a setting that is a list, or one line with commas in it."""
    parts = setting.split(",") if isinstance(setting, str) else setting or []
    return [part.strip() for part in parts if part.strip()]
