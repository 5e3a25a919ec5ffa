"""Names of the package, each of which `__init__.py` imports when it is first used."""

from flowpolicies_ogbench.environment import OGBenchEnv as OGBenchEnv
from flowpolicies_ogbench.environment import make_env as make_env
from flowpolicies_ogbench.evaluation import evaluate_tasks as evaluate_tasks
from flowpolicies_ogbench.generation import generate as generate
from flowpolicies_ogbench.loading import GENERATED_DATA_DIR as GENERATED_DATA_DIR
from flowpolicies_ogbench.loading import PUBLISHED_DATA_DIR as PUBLISHED_DATA_DIR
from flowpolicies_ogbench.loading import load as load
from flowpolicies_ogbench.names import task_names as task_names
