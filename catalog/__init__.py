"""The products, and what they cost."""
