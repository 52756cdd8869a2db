"""The classes of connections to RabbitMQ. The setting AMQP_WIRE chooses between two implementations (connection.py).

* `fast` (fast.py, frames.py, transport.py, properties.py) overrides private parts of py-amqp, for speed and safety;
* `plain` (plain.py) uses py-amqp's public API only, so that a new version of py-amqp can be tried at once.

A channel of either is a py-amqp channel with the methods of connection.Channel.
"""
