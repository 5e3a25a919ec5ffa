"""Names of the package, each of which `__init__.py` imports when it is first used."""

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
from flowpolicies.training.export import export_run as export_run
from flowpolicies.training.loading import load_policy as load_policy
from flowpolicies.training.plots import plot_learning_curves as plot_learning_curves
from flowpolicies.training.runs import RunFolder as RunFolder
from flowpolicies.training.seeds import train_seeds as train_seeds
from flowpolicies.training.seeds import train_together as train_together
from flowpolicies.training.settings import TrainSettings as TrainSettings
from flowpolicies.training.train import load_checkpoint as load_checkpoint
from flowpolicies.training.train import train as train
