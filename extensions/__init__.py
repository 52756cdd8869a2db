"""Our Nameko extensions: everything that talks to the broker, a database, a cache or a socket."""
