"""Makes the tests' process green, as `nameko run` makes the services'. Loaded by pytest before anything else."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet announces its end at every import
    import eventlet

eventlet.monkey_patch()
