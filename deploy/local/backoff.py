"""How long to wait before a service that died is started again."""

from dataclasses import dataclass

FIRST = 0.5  # seconds
LONGEST = 10.0
HEALTHY = 30.0  # a life this long makes the earlier deaths forgotten


@dataclass
class Backoff:
    """The pauses of one service: 0.5, 1, 2, 4, 8, 10, 10 ... s, from the start again after a life of 30 s."""

    deaths: int = 0

    def pause(self, lived: float) -> float:
        """The pause, in seconds, after a life of `lived` seconds."""
        if lived >= HEALTHY:
            self.deaths = 0
        wait = min(FIRST * 2.0**self.deaths, LONGEST)
        self.deaths += 1
        return wait
