"""Overrides of py-amqp's private parts, for speed and robustness."""
