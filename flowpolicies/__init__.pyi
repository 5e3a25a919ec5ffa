"""Names of the package, each of which `__init__.py` imports when it is first used."""

from flowpolicies.algorithms import *  # noqa: F403
from flowpolicies.data import TransitionDataset as TransitionDataset
from flowpolicies.data import generate_dataset as generate_dataset
from flowpolicies.data import list_sources as list_sources
from flowpolicies.data import load_dataset as load_dataset
from flowpolicies.data import make_env as make_env
from flowpolicies.data import register_source as register_source
from flowpolicies.policies import Evaluation as Evaluation
from flowpolicies.policies import FlowPolicy as FlowPolicy
from flowpolicies.policies import SteeredEnv as SteeredEnv
from flowpolicies.policies import evaluate as evaluate
from flowpolicies.training.seeds import train_seeds as train_seeds
from flowpolicies.version import __version__ as __version__
