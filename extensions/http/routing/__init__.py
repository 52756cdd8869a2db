"""From a parsed request to the method that handles it."""
