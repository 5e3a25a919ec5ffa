"""Names of the package, each of which `__init__.py` imports when it is first used."""

from flowpolicies.policies.evaluation import Evaluation as Evaluation
from flowpolicies.policies.evaluation import Interval as Interval
from flowpolicies.policies.evaluation import evaluate as evaluate
from flowpolicies.policies.flow_policy import FlowPolicy as FlowPolicy
from flowpolicies.policies.steering import SteeredEnv as SteeredEnv
