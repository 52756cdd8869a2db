"""The listening socket and HTTP/1.1 on each connection."""
