"""Stock: what is on hand, what is reserved for orders, and the ledger that proves it."""
