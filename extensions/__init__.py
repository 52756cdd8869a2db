"""Our Nameko extensions: everything that talks to the broker, a database, a cache or a socket."""

from extensions.runtime import garbage

garbage.search_seldom()
