"""Payments: what the provider authorised, captured and gave back for the orders."""
