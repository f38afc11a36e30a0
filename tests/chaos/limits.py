"""What the load of the chaos suite and its oracles agree on."""

CONCURRENCY = 4
"""Of queue `chaos`, in each worker."""
