"""Downloading of files: transfer over the network, checks of the content, and locks between processes."""
