"""State of environments and of the loop of `learn`, beside a checkpoint, from which a run continues exactly."""
