"""Takes orders and decides them: the only service that knows whether an order stands."""
