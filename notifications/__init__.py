"""Notifications: what the users are told about their orders and their accounts."""
