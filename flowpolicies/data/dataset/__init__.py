"""Validated transitions: the dataset, its checks, compact storage, and transforms of rewards."""

from flowpolicies.data.dataset.dataset import TransitionDataset as TransitionDataset
