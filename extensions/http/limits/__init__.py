"""What bounds the load: bulkheads, circuit breakers, shared responses, rate limits."""
