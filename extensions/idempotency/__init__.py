"""Use cases that run at most once for each idempotency key, alone or in batches."""
