"""Access tokens, key files, and the checks of a production configuration. Imports no AMQP and no HTTP library."""
