"""What has to be there before the first service starts: the keys and the tables. The compose file's first job."""

import sys

from deploy import keys, migrate


def main() -> int:
    """Keys, then migrations; the exit code."""
    return keys.main() or migrate.main()


if __name__ == "__main__":
    sys.exit(main())
