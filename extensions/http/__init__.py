"""The HTTP entrypoint: our own reader and writer of HTTP/1.1, bounded in time and size, and the routes on top."""
