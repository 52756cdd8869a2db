"""Redis: connection, versioned cache, local copies, shared counters. Imports no AMQP and no HTTP library."""
