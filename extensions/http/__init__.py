"""The HTTP side: server, routing, limits, and the OpenAPI document."""
