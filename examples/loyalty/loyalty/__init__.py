"""Loyalty: points for confirmed orders."""
