"""What has to be there before the first service starts: keys, tables, and in the compose file what its broker loads and
who logs in to the databases."""

import sys

from deploy import databases, definitions, keys, migrate


def main() -> int:
    """Keys, what the broker loads, databases (the latter two where the environment says so), tables; the exit code."""
    return keys.main() or definitions.main() or databases.main() or migrate.main()


if __name__ == "__main__":
    sys.exit(main())
