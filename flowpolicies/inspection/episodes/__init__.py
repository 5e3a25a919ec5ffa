"""Checks that compare trajectories with each other: copies, their last rows, leaps between them, and units."""
