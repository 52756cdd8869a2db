"""Limits of the load: bulkheads, circuit breakers, shared responses, quotas, rate limits."""
