"""Training runs as functions and callbacks, which the command line uses as well."""

from flowpolicies.moved import moved_names
from flowpolicies.shell.hyperparameters import SB3Hyperparameters as SB3Hyperparameters
from flowpolicies.training.callbacks import AtomicCheckpoint as AtomicCheckpoint
from flowpolicies.training.callbacks import EvaluationCallback as EvaluationCallback
from flowpolicies.training.callbacks import InterruptBetweenSteps as InterruptBetweenSteps
from flowpolicies.training.callbacks import ProgressCallback as ProgressCallback
from flowpolicies.training.collect import collect as collect
from flowpolicies.training.envs import make_vec_env as make_vec_env
from flowpolicies.training.evaluations import EvaluationRow as EvaluationRow
from flowpolicies.training.evaluations import Phase as Phase
from flowpolicies.training.evaluations import read_evaluations as read_evaluations
from flowpolicies.training.exact.environments import Resumable as Resumable
from flowpolicies.training.loading import load_policy as load_policy
from flowpolicies.training.plots import plot_learning_curves as plot_learning_curves
from flowpolicies.training.runs import RunFolder as RunFolder
from flowpolicies.training.settings import TrainSettings as TrainSettings
from flowpolicies.training.train import load_checkpoint as load_checkpoint
from flowpolicies.training.train import train as train

__getattr__ = moved_names(
    __name__,
    {
        "Knobs": "flowpolicies.shell.hyperparameters:SB3Hyperparameters",
        "Preset": "flowpolicies.reproduction:Preset",
        "atomic_write": "flowpolicies.files:atomic_write",
        "list_presets": "flowpolicies.reproduction:list_presets",
        "load_preset": "flowpolicies.reproduction:load_preset",
        "write_json": "flowpolicies.files:write_json",
    },
)
