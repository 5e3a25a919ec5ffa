"""Re-simulation of stored transitions, by a source's own simulator or by an environment that observes its state."""
