"""Flow policies for offline and offline-to-online reinforcement learning, behind Stable-Baselines3's contract.

from flowpolicies import QFlow, load_dataset, make_env

model = QFlow(dataset=load_dataset("ogbench:cube-single-play-singletask-task2-v0"), guidance_lambda=5.0)
model.learn_offline(1_000_000)
model.set_env(make_env("ogbench:cube-single-play-singletask-task2-v0"))
print(model.evaluate(episodes=50))
"""

from flowpolicies.algorithms import *  # noqa: F403
from flowpolicies.data import TransitionDataset as TransitionDataset
from flowpolicies.data import generate_dataset as generate_dataset
from flowpolicies.data import list_sources as list_sources
from flowpolicies.data import load_dataset as load_dataset
from flowpolicies.data import make_env as make_env
from flowpolicies.data import register_source as register_source
from flowpolicies.moved import install
from flowpolicies.policies import Evaluation as Evaluation
from flowpolicies.policies import FlowPolicy as FlowPolicy
from flowpolicies.policies import SteeredEnv as SteeredEnv
from flowpolicies.policies import evaluate as evaluate
from flowpolicies.version import __version__ as __version__

install()
