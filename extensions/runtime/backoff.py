"""Pauses between tries: exponential backoff with jitter. Used by the services and by the launcher."""

import math
import random


class Backoff:
    """The pauses of one operation: `first` seconds, doubled after each failure up to `longest`.

    Each pause is randomly shortened by up to the share `jitter` (0 to 1), so that several processes that failed
    together do not retry together. A try that ran for `healthy_after` seconds before it failed starts the sequence
    again.
    """

    def __init__(
        self, first: float = 0.25, longest: float = 10.0, *, jitter: float = 0.5, healthy_after: float = math.inf
    ) -> None:
        self.first, self.longest, self.jitter, self.healthy_after = first, longest, jitter, healthy_after
        self.reset()

    def reset(self) -> None:
        """Start again with the shortest pause."""
        self.failures = 0
        """Failures in a row."""
        self._next = self.first

    def next_pause(self, ran_for: float = 0.0) -> float:
        """Count a failure and return the seconds to wait before the next try. The try ran for `ran_for` seconds."""
        if ran_for >= self.healthy_after:
            self.reset()
        self.failures += 1
        pause, self._next = self._next, min(self._next * 2, self.longest)
        return pause * random.uniform(1 - self.jitter, 1.0)  # noqa: S311  (jitter needs no cryptography)
