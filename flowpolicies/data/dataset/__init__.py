"""`TransitionDataset` and what it is built from: arrays, episodes, tables and .npz files.

Modules that read or write other formats import this package, and it imports none of them.
"""

from flowpolicies.data.dataset.dataset import TransitionDataset as TransitionDataset
