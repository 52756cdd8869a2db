"""The settings of config.yml with the values of the environment, as every `nameko` command reads them."""

import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENV_FILE = ROOT / "var" / "env"  # written by `make run`


def load(path: Path | None = None) -> dict[str, Any]:
    """Read config.yml (or `path`). Also sets Nameko's global configuration, which its RPC client reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eventlet prints a deprecation warning when it is imported
        from nameko.cli.utils.config import setup_config

    with (path or ROOT / "config.yml").open("rb") as file:
        return dict(setup_config(file))
