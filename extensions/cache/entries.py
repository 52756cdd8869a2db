"""The format of a cache entry in Redis: a hash with a version and a value, and what to do with keys of another format.

The value is a JSON object; "" marks an invalidated entry.
"""

import json
import logging
from contextlib import suppress
from typing import Any

import redis

log = logging.getLogger(__name__)

# An invalidation leaves its version in the entry, so that a reader that began before the change cannot store the old
# value after it (H15). KEYS: the entry. ARGV: version, value ("" to invalidate), seconds to live. A key of another type
# is replaced.
PUT_IF_NEWER = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local known = tonumber(redis.call('HGET', KEYS[1], 'version') or '-1') or -1
if tonumber(ARGV[1]) < known then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'value', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""

# Redis' errors for a key whose type or content is not ours.
FOREIGN_CONTENT = ("WRONGTYPE", "value is not an integer")


def decode(stored: Any) -> dict[str, Any] | None:
    """Return the value of an entry, None if there is none or it is invalidated.

    Raises ValueError if `stored` is no JSON object, and `stored` itself if it is an error of Redis.
    """
    if not stored:
        return None
    if isinstance(stored, Exception):
        raise stored
    value = json.loads(stored)
    if not isinstance(value, dict):
        message = "no JSON object"
        raise ValueError(message)  # noqa: TRY004  (what json.loads raises as well)
    return value


def raise_unless_foreign(result: Any) -> None:
    """Raise `result` if it is an error that Redis itself caused, and not the content of a key."""
    if isinstance(result, redis.ResponseError) and not str(result).startswith(FOREIGN_CONTENT):
        raise result


def remove_foreign(client: redis.Redis, key: str, reason: Exception) -> None:
    """Delete a key whose content is not ours."""
    log.warning("%s has unexpected content (%s) and is removed", key, reason)
    with suppress(redis.exceptions.NoPermissionError):  # a key of another service, which removes it itself
        client.unlink(key)
