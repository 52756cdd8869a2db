"""The REST API: authenticates and validates requests, and calls the services. No database, no business rule."""
