"""Growing, jittered pauses between tries."""

import random


class Backoff:
    """Growing, jittered pauses: `first` seconds doubling up to `longest`, each shortened by up to half."""

    def __init__(self, first: float = 0.25, longest: float = 10.0) -> None:
        self.first, self.longest, self._next = first, longest, first

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._next = self.first

    def next_pause(self) -> float:
        """Return the seconds to wait before the next try."""
        pause, self._next = self._next, min(self._next * 2, self.longest)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  (jitter needs no cryptography)
