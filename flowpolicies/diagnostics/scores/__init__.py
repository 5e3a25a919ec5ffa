"""Scores of policies on a dataset, without an environment: fitted Q evaluation, initial values, TD errors."""

from flowpolicies.diagnostics.scores.callback import ScoreCallback as ScoreCallback
from flowpolicies.diagnostics.scores.fqe import FittedQ as FittedQ
from flowpolicies.diagnostics.scores.fqe import fitted_q_evaluation as fitted_q_evaluation
from flowpolicies.diagnostics.scores.values import critics_of as critics_of
from flowpolicies.diagnostics.scores.values import initial_value as initial_value
from flowpolicies.diagnostics.scores.values import td_error as td_error
