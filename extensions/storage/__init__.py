"""PostgreSQL: engine, unit of work, outbox, inbox, timers, migrations. Knows no AMQP and no HTTP."""
