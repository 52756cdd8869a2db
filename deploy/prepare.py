"""What has to be there before the first service starts: keys, tables, and in the compose file what its broker loads and
who logs in to Redis and the databases."""

import sys

from deploy import databases, definitions, keys, migrate, redis_users


def main() -> int:
    """Keys, what broker and Redis load, databases (all three where the environment says so), tables: the exit code."""
    return keys.main() or definitions.main() or redis_users.main() or databases.main() or migrate.main()


if __name__ == "__main__":
    sys.exit(main())
