"""HTTP/1.1 over TCP: the listening socket, its connections, and the request parser."""
