"""`flowpolicies toy`: the 2D experiments."""
