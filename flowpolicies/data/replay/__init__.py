"""The replay buffer: storage, windows of transitions, goals, and frames of images."""
