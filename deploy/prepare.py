"""What has to be there before the first service starts: keys, tables, and in the compose file what its broker loads."""

import sys

from deploy import definitions, keys, migrate


def main() -> int:
    """Keys, then the broker's definitions where BROKER_DEFINITIONS_FILE is, then migrations; the exit code."""
    return keys.main() or definitions.main() or migrate.main()


if __name__ == "__main__":
    sys.exit(main())
