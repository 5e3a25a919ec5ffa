"""Minari for flowpolicies: loading and writing its datasets, and making the environments of datasets."""

from flowpolicies_minari.environment import MinariEnv as MinariEnv
from flowpolicies_minari.environment import make_env as make_env
from flowpolicies_minari.loading import load as load
from flowpolicies_minari.rewards import RewardConvention as RewardConvention
from flowpolicies_minari.writing import open_writer as open_writer
from flowpolicies_minari.writing import to_minari as to_minari
