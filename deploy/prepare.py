"""Creates what the services need before they start: keys, the broker's definitions, Redis' users, databases, tables.

In production it also switches off what is left of a demo.
"""

import sys

from deploy import databases, definitions, demo_accounts, keys, migrate, redis_users


def main() -> int:
    """Run all steps, some of which are only for some environments; returns the exit code of the first that fails."""
    steps = (keys, definitions, redis_users, databases, migrate, demo_accounts)
    return next((code for step in steps if (code := step.main())), 0)


if __name__ == "__main__":
    sys.exit(main())
