"""Access tokens, key files, and the checks of a production configuration. Knows no AMQP and no HTTP."""
