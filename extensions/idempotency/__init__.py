"""Calls that create something: at most once per idempotency key, and several in one transaction."""
