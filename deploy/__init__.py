"""Everything that installs and starts the suite: keys, migrations, the demo seed, and the local launcher."""
