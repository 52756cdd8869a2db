"""User quota: the most requests that one user may have in flight."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from extensions.http.message.errors import TooManyAtOnce


class UserQuota:
    """Counts the requests in flight of each user, so that one user cannot occupy all workers."""

    def __init__(self, max_in_flight: int) -> None:
        """`max_in_flight` is the limit of each user; 0 means no limit."""
        self._max_in_flight = max_in_flight
        self._in_flight: Counter[Hashable] = Counter()

    @contextmanager
    def hold(self, user: Hashable) -> Iterator[None]:
        """Count one request of `user` until the block ends; None is an anonymous caller, who has no limit.

        Raises TooManyAtOnce.
        """
        if user is None or not self._max_in_flight:
            yield
            return
        if self._in_flight[user] >= self._max_in_flight:
            raise TooManyAtOnce.over(self._max_in_flight)
        self._in_flight[user] += 1
        try:
            yield
        finally:
            self._in_flight[user] -= 1
            if not self._in_flight[user]:
                del self._in_flight[user]
