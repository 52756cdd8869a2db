"""Rate limits that hold for all replicas together: counted in Redis by the generic cell rate algorithm (GCRA).

Of each counter one number is kept: when, at the allowed rate, all that was spent would have been spent. So nothing
jumps at the end of a window, and a counter takes the same room however high its quota is. While Redis is away nothing
is limited.
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

# Fewer than the spare connections of the pool (cache.py): having none left would look like a Redis that is away.
AT_ONCE = 32

_POLICY = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,5})")

# KEYS: the counters. ARGV: 1 to spend, 0 to look; then the quota and the seconds of each. Either all are spent, or
# none. Returns, in whole microseconds, of each: how long until one can be spent (0: at once), how long until nothing
# counts as spent. Redis' own clock is the one that all replicas share. What is no counter of ours gives way; one from
# before the clock was set back counts as full, and no longer.
SPEND = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local spent, answer, allowed = {}, {}, true
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
  answer[2 * i - 1], answer[2 * i] = math.max(0, math.ceil(wait)), math.max(0, math.ceil(full_at - now))
end
if allowed and ARGV[1] == '1' then
  for i, key in ipairs(KEYS) do
    answer[2 * i] = math.ceil(spent[i] - now)
    redis.call('SET', key, string.format('%.0f', spent[i]), 'PX', math.ceil((spent[i] - now) / 1000))
  end
end
return answer
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """So much in so many seconds: `quota` at once at most, and as much again, evenly, within each `seconds`."""

    name: str
    quota: int
    seconds: int

    @classmethod
    def of(cls, name: str, setting: Any) -> "Policy | None":
        """Return what a setting such as `600/60` says, None for `off`. Raises ValueError."""
        if setting in {"off", "", None, False}:  # in YAML, off is false
            return None
        match = _POLICY.fullmatch(str(setting))
        if match is None:
            raise ValueError(
                f'the rate limit {name} must be requests/seconds, such as "600/60", or off: not {setting!r}'
            )
        return cls(name, int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Level:
    """How a counter stands: what is left of its quota, and in how many seconds, at least one, it is whole again.

    `retry_after`, in seconds, is 0 where there is something left.
    """

    policy: Policy
    left: int
    whole_in: int
    retry_after: int


class RateLimits(SharedExtension):
    """The counters of all replicas. `subject` is whom a policy counts: it is stored only as a hash."""

    connection = RedisConnection()

    def __init__(self) -> None:
        super().__init__()
        self._script: Any = None
        self._turns = Semaphore(AT_ONCE)

    def spend(self, *counters: tuple[Policy, str]) -> list[Level]:
        """Count one for each (policy, subject), or for none of them where one has nothing left.

        Returns how they stand then; nothing while Redis is away.
        """
        return self._ask(counters, spend=True)

    def look(self, *counters: tuple[Policy, str]) -> list[Level]:
        """Return how counters stand; nothing while Redis is away."""
        return self._ask(counters, spend=False)

    def forget(self, policy: Policy, subject: str) -> None:
        """Let a counter begin anew."""
        self.connection.attempt(lambda client: client.unlink(_key(policy, subject)))

    def _ask(self, counters: Sequence[tuple[Policy, str]], *, spend: bool) -> list[Level]:
        if not counters:
            return []
        keys = [_key(policy, subject) for policy, subject in counters]
        arguments = [number for policy, _ in counters for number in (policy.quota, policy.seconds)]
        with self._turns:
            times = self.connection.attempt(lambda client: self._run(client, keys, [int(spend), *arguments]))
        if times is None:
            return []
        return [_level(policy, *times[2 * number : 2 * number + 2]) for number, (policy, _) in enumerate(counters)]

    def _run(self, client: redis.Redis, keys: list[str], arguments: list[int]) -> Any:
        if self._script is None:
            self._script = client.register_script(SPEND)
        return self._script(keys=keys, args=arguments)


def _key(policy: Policy, subject: str) -> str:
    return f"limits:{policy.name}:{hashlib.sha256(subject.encode()).hexdigest()[:32]}"


def _level(policy: Policy, wait: int, spent: int) -> Level:
    """Build a level from microseconds: until one can be spent, and until nothing counts as spent."""
    step = policy.seconds * 1_000_000 / policy.quota
    # Both were rounded up, by less than a microsecond.
    left = 0 if wait else math.floor((policy.seconds * 1_000_000 - spent + 1) / step)
    return Level(policy, left, max(1, math.ceil(spent / 1_000_000)), math.ceil(wait / 1_000_000))
