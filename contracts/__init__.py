"""Everything that crosses a service boundary: events, RPC views, requests and errors. Plain data, no I/O."""
