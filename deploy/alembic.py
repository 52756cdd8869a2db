"""Alembic's commands for one service: `python -m deploy.alembic orders revision --autogenerate --message "weight"`."""

import sys

from alembic.config import CommandLine

from deploy.databases import configured
from deploy.migrate import alembic_config


def main(arguments: list[str]) -> int:
    """Run the command that follows the name of the service. Returns the exit code."""
    databases = configured()
    service, *rest = arguments or [""]
    if service not in databases:
        print(f"{__doc__}\nThe services are {', '.join(databases)}.", file=sys.stderr)
        return 2
    line = CommandLine(prog=f"python -m deploy.alembic {service}")
    options = line.parser.parse_args(rest)
    if not hasattr(options, "cmd"):
        line.parser.error("too few arguments")
    line.run_cmd(alembic_config(databases[service]), options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
