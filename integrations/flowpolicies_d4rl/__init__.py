"""D4RL for flowpolicies: its original data, and its tasks in simulators that still install."""
