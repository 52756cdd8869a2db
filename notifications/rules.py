"""The rules of webhooks: who receives an event, when an attempt is repeated, and when an endpoint rests or is disabled.

Pure functions. An attempt succeeds with a status from 200 to 299; everything else, a redirect too, is a failure.
"""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

from contracts.webhooks import SHOP_EVENTS, TEST_EVENT, Scope

RETRY_SECONDS = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
"""The pauses after a first, second, ... failed attempt. After the last one, the delivery has failed."""
JITTER = 0.1
"""By which share a pause may be longer, so that deliveries that failed together are not repeated together."""
DISABLED_AFTER = timedelta(hours=120)
"""An endpoint is disabled after a failure that comes so long after the first one, without a success in between."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 300.0
"""How long an endpoint rests after its first failure, and at most. Then a single delivery is attempted."""
SLOW_SECONDS = 600.0
"""How long an endpoint counts as slow after a slow response, and after its registration or a change of its URL."""
GONE = 410
THROTTLING = frozenset({429, 502, 503, 504})
"""The endpoint has too much to do: its Retry-After holds for all of its deliveries."""
MAX_ERROR = 500

SHOP_EVENT_TYPES = frozenset(event.event_type for event in SHOP_EVENTS)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt and its result. `attempts` counts this one; `status` is None where there was no response."""

    delivery_id: UUID
    attempts: int
    duration_ms: int
    status: int | None = None
    body: bytes = b""
    retry_after: float | None = None
    """The header Retry-After, in seconds."""
    problem: str = ""
    """Why there was no response."""

    @property
    def is_success(self) -> bool:
        """Whether the endpoint accepted the delivery."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def error(self) -> str | None:
        """What is wrong, in words; None after a success."""
        if self.is_success:
            return None
        if self.status is None:
            return self.problem[:MAX_ERROR]
        if 300 <= self.status < 400:
            return f"the endpoint redirects ({self.status}), and redirects are not followed"
        return f"the endpoint responded with {self.status}"


def is_subscribed(subscribed: Collection[str], event_type: str) -> bool:
    """Tell whether these names contain an event. Every endpoint receives the test event."""
    family = event_type.partition(".")[0] + ".*"
    return event_type == TEST_EVENT or not {"*", family, event_type}.isdisjoint(subscribed)


def receives(webhook: Mapping[str, Any], event_type: str, user_id: UUID | None) -> bool:
    """Tell whether an endpoint (`events`, `scope`, `user_id`) receives an event of a user's order, or of the shop."""
    is_own = user_id is not None and webhook["user_id"] == user_id
    if event_type in SHOP_EVENT_TYPES or not is_own:
        return webhook["scope"] == Scope.SHOP and is_subscribed(webhook["events"], event_type)
    return is_subscribed(webhook["events"], event_type)


def retry_pause(attempts: int, retry_after: float | None = None) -> float | None:
    """Return the seconds until the next attempt, after `attempts` failed ones; None if there is none.

    A Retry-After makes the pause longer, up to the pause after the next attempt.
    """
    if attempts > len(RETRY_SECONDS):
        return None
    pause = RETRY_SECONDS[attempts - 1] * random.uniform(1.0, 1.0 + JITTER)  # noqa: S311  (jitter needs no cryptography)
    longest = RETRY_SECONDS[min(attempts, len(RETRY_SECONDS) - 1)]
    return max(pause, min(retry_after or 0.0, longest))


def longest_pause() -> float:
    """Return the longest pause between two attempts, in seconds."""
    return max(RETRY_SECONDS) * (1.0 + JITTER)


def endpoint_pause(failures: int, attempts: Collection[Attempt]) -> float:
    """Return for how many seconds an endpoint rests after so many failures in a row. `attempts` are the latest."""
    pause = min(FIRST_PAUSE_SECONDS * float(2 ** min(failures - 1, 30)), LONGEST_PAUSE_SECONDS)
    asked = [one.retry_after or 0.0 for one in attempts if one.status in THROTTLING]
    return max(pause, min(max(asked, default=0.0), LONGEST_PAUSE_SECONDS))


def parse_retry_after(header: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After means, from its number or its date; None for none, and for nonsense."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())
