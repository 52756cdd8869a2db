"""Checks the console's code with the packages of console/lint: `python -m deploy.local.lint_console`."""

import subprocess
import sys

from deploy.local.node_packages import ROOT, ensure, node

SOURCES, TARGET = ROOT / "console/lint", ROOT / "var/console-lint"


def main() -> int:
    """Run tsc and ESLint. Returns 1 if one of them has findings."""
    packages, program = ensure(SOURCES, TARGET), node()
    types = [str(packages / "typescript/bin/tsc"), "--project", "console"]
    rules = [str(packages / "eslint/bin/eslint.js"), "--config", "console/lint/eslint.config.js", "console"]
    results = [subprocess.run([program, *command], cwd=ROOT, check=False).returncode for command in (types, rules)]
    return int(any(results))


if __name__ == "__main__":
    sys.exit(main())
