"""Invalidations that Redis has not received: they are retried until none is pending."""

from extensions.cache import connection
from extensions.cache.connection import RedisConnection
from extensions.cache.pending_invalidations import PendingInvalidations


def test_an_invalidation_that_fails_during_a_successful_ping_is_retried(monkeypatch):
    """Another call had taken it from the pending ones, and put it back while the ping succeeded."""
    monkeypatch.setattr(connection, "INVALIDATION_RETRY_SECONDS", 0)
    redis = RedisConnection()
    redis._pending = PendingInvalidations("catalog:")
    pings = []

    def ping(_call):
        pings.append(dict(redis._pending._by_key))
        redis._pending._by_key.clear()
        if len(pings) == 1:
            redis._pending.add({"catalog:product:1": ("put", 2, 60)})
        return True

    monkeypatch.setattr(redis, "_try", ping)
    redis._send_pending()
    assert pings == [{}, {"catalog:product:1": ("put", 2, 60)}]
