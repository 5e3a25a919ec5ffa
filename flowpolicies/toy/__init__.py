"""The 2D experiments of the Q-Flow paper: what algorithms do to a plane of points with rewards, with any algorithm."""
