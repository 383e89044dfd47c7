"""How work runs: device, worker processes, seeds, progress."""
