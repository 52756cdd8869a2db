"""Makes the tests' process green, as `nameko run` makes the services'. Loaded by pytest before anything else."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet prints a deprecation warning when it is imported
    import eventlet

eventlet.monkey_patch()
