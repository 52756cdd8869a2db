"""Makes the tests' process green, as `nameko run` makes the services'. Loaded by pytest before anything else."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet warns at every import that it is deprecated
    import eventlet

eventlet.monkey_patch()
