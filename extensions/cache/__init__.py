"""Redis: connection, versioned cache, local replicas, shared counters. Knows no AMQP and no HTTP."""
