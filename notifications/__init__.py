"""Notifications: messages to users about their orders and their accounts."""
