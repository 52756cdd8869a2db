"""How slow this machine is now, and the deadlines of a suite that fit it.

Most limits of tests only matter if a test fails, so they are long. But a request that the suite itself refuses at its
deadline fails a test on a slow machine. An operator of such a machine would raise these settings, and so do the tests.
"""

import time

# sum(range(NUMBERS)) and how long it takes on a machine of 2020 with an idle processor.
NUMBERS, SECONDS = 15_000_000, 0.4
# A busy machine of normal speed, and the highest factor.
BUSY, HIGHEST = 2.0, 8.0
RPC_TIMEOUT_SECONDS, HTTP_DEADLINE_SECONDS, ORDER_WAIT_SECONDS = 4.0, 5.0, 3.5  # the defaults of config.yml


def slowness() -> float:
    """Return how many times longer a computation takes than on a fast idle machine; 1.0 up to twice as long."""
    began = time.perf_counter()
    sum(range(NUMBERS))
    factor = (time.perf_counter() - began) / SECONDS
    return 1.0 if factor < BUSY else min(HIGHEST, factor)


def deadline_factor(settings: dict[str, str]) -> float:
    """Return by how much deadlines() has raised the deadlines."""
    return float(settings["HTTP_DEADLINE_SECONDS"]) / HTTP_DEADLINE_SECONDS


def deadlines() -> dict[str, str]:
    """Return the settings of a suite on this machine, as environment variables."""
    factor = slowness()
    return {
        "RPC_TIMEOUT_SECONDS": str(RPC_TIMEOUT_SECONDS * factor),
        "HTTP_DEADLINE_SECONDS": str(HTTP_DEADLINE_SECONDS * factor),
        "ORDER_WAIT_SECONDS": str(ORDER_WAIT_SECONDS * factor),
    }
