"""Installs, starts and checks the suite: keys, users, migrations, the demo shop, `make run`, the consistency check."""
