"""The choice of a model of a run: losses on held-out episodes, and the best model so far."""
