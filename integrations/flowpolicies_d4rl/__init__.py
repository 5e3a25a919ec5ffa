"""D4RL for flowpolicies: its original datasets, and its environments rebuilt with current simulators."""
