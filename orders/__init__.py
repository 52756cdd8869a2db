"""Orders: accepts them, and decides whether each is confirmed or cancelled."""
