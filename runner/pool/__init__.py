"""Sandboxes that are kept and lent: what is decided, and who waits for it."""
