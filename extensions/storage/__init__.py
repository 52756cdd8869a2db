"""PostgreSQL: engine, unit of work, outbox, inbox, timers, migrations. Imports no AMQP and no HTTP library."""
