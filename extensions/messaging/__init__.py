"""Events over RabbitMQ: connections, topology, publishing, event handlers, retries, dead letters."""
