"""The REST API: checks who asks and what for, and asks the service that knows. No database, no business rule."""
