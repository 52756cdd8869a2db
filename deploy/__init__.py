"""Everything that puts the suite on a machine: keys, migrations, the demo seed, compose, and the local launcher."""
