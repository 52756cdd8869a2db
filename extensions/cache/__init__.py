"""Redis: connection, versioned cache, local replicas, shared counters. Imports no AMQP and no HTTP library."""
