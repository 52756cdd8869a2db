"""Remote procedure calls over RabbitMQ, in Nameko's wire format."""
