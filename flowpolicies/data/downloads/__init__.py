"""Downloads: transfer, cache, locks and hashes."""
