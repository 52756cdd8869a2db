"""Creates what the services need before they start: keys, the broker's definitions, Redis' users, databases, tables."""

import sys

from deploy import databases, definitions, keys, migrate, redis_users


def main() -> int:
    """Run all steps (three of them only if the environment asks for them); returns the exit code."""
    return keys.main() or definitions.main() or redis_users.main() or databases.main() or migrate.main()


if __name__ == "__main__":
    sys.exit(main())
