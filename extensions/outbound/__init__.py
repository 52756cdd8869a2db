"""Requests to addresses that users name, such as webhooks, and mails: closed to everything that is not public."""
