"""Rate limits shared by all instances, counted in Redis by the generic cell rate algorithm (GCRA).

A counter is one number: the theoretical arrival time, at which the whole quota is available again. So the quota is
refilled evenly and not at the end of a window, and the size of a counter does not depend on its quota. While Redis is
unavailable nothing is limited.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
from eventlet.semaphore import Semaphore
from nameko.extensions import SharedExtension

from extensions.cache.connection import RedisConnection

# Less than connection.SPARE_CONNECTIONS: an empty pool would look like an unavailable Redis.
MAX_CONCURRENT = 32

_POLICY = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,5})")

# KEYS: the counters. ARGV: 1 to consume, 0 to peek; then the quota and the seconds of each. All counters consume one
# unit, or none does. Returns for each counter, in whole microseconds: the time until a unit is available (0: now), and
# the time until the whole quota is. The clock is that of Redis, which all instances share. A key of another type is
# replaced; a counter from before the clock was set back is reset to a fully consumed quota.
CONSUME = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local spent, result, allowed = {}, {}, true
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'string' and kind ~= 'none' then redis.call('DEL', key) end
  local window = ARGV[2 * i + 1] * 1000000
  local step = window / ARGV[2 * i]
  local full_at = tonumber(redis.call('GET', key) or '0') or 0
  if full_at ~= full_at then full_at = 0 end
  if full_at > now + window then
    full_at = now + window
    redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil(window / 1000))
  end
  spent[i] = math.max(full_at, now) + step
  local wait = spent[i] - window - now
  if wait > 0 then allowed = false end
  result[2 * i - 1], result[2 * i] = math.max(0, math.ceil(wait)), math.max(0, math.ceil(full_at - now))
end
if allowed and ARGV[1] == '1' then
  for i, key in ipairs(KEYS) do
    result[2 * i] = math.ceil(spent[i] - now)
    redis.call('SET', key, string.format('%.0f', spent[i]), 'PX', math.ceil((spent[i] - now) / 1000))
  end
end
return result
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """`quota` units per `seconds`: a burst of at most `quota`, refilled evenly."""

    name: str
    quota: int
    seconds: int

    @classmethod
    def of(cls, name: str, setting: Any) -> "Policy | None":
        """Parse a setting such as `600/60`; None for `off`. Raises ValueError."""
        if setting in {"off", "", None, False}:  # in YAML, off is false
            return None
        match = _POLICY.fullmatch(str(setting))
        if match is None:
            raise ValueError(
                f'the rate limit {name} must be requests/seconds, such as "600/60", or off: not {setting!r}'
            )
        return cls(name, int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Quota:
    """The state of a counter. Times are in whole seconds."""

    policy: Policy
    remaining: int
    """Units available now."""
    reset_after: int
    """Time until the whole quota is available, at least 1."""
    retry_after: int
    """Time until one unit is available, 0 if one is available now."""


class RateLimits(SharedExtension):
    """The counters of all instances. `subject` is the user or address that is counted; only its hash is stored."""

    connection = RedisConnection()

    def __init__(self) -> None:
        super().__init__()
        self._script: Any = None
        self._concurrent = Semaphore(MAX_CONCURRENT)

    def consume(self, *counters: tuple[Policy, str]) -> list[Quota]:
        """Consume one unit of each (policy, subject), or of none if one of them has no unit available.

        Returns the state afterwards; [] while Redis is unavailable.
        """
        return self._run(counters, consume=True)

    def peek(self, *counters: tuple[Policy, str]) -> list[Quota]:
        """Return the state of counters; [] while Redis is unavailable."""
        return self._run(counters, consume=False)

    def reset(self, policy: Policy, subject: str) -> None:
        """Make the whole quota available again."""
        self.connection.attempt(lambda client: client.unlink(_key(policy, subject)))

    def _run(self, counters: Sequence[tuple[Policy, str]], *, consume: bool) -> list[Quota]:
        if not counters:
            return []
        keys = [_key(policy, subject) for policy, subject in counters]
        arguments = [number for policy, _ in counters for number in (policy.quota, policy.seconds)]
        with self._concurrent:
            times = self.connection.attempt(lambda client: self._run_script(client, keys, [int(consume), *arguments]))
        if times is None:
            return []
        return [_quota(policy, *times[2 * number : 2 * number + 2]) for number, (policy, _) in enumerate(counters)]

    def _run_script(self, client: redis.Redis, keys: list[str], arguments: list[int]) -> Any:
        if self._script is None:
            self._script = client.register_script(CONSUME)
        return self._script(keys=keys, args=arguments)


def _key(policy: Policy, subject: str) -> str:
    return f"limits:{policy.name}:{hashlib.sha256(subject.encode()).hexdigest()[:32]}"


def _quota(policy: Policy, wait: int, spent: int) -> Quota:
    """Build the state from microseconds: until one unit is available, and until the whole quota is."""
    step = policy.seconds * 1_000_000 / policy.quota
    # Both were rounded up by less than a microsecond.
    remaining = 0 if wait else math.floor((policy.seconds * 1_000_000 - spent + 1) / step)
    return Quota(policy, remaining, max(1, math.ceil(spent / 1_000_000)), math.ceil(wait / 1_000_000))
