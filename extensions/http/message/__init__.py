"""Requests and responses: parsing, validation, negotiation, conditional requests, problem details."""
