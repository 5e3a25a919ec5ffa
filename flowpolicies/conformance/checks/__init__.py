"""The checks, one module per part of Stable-Baselines3's interface."""

from __future__ import annotations

from flowpolicies.conformance.checks import (
    buffers,
    callbacks,
    construction,
    evaluation,
    hyperparameters,
    learning,
    loading,
    logs,
    parameters,
    policies,
    prediction,
    saving,
    seeding,
    vec_envs,
)
from flowpolicies.conformance.promises import Promise, promises_of

_BY_SUBJECT = (
    *(construction, policies, vec_envs, learning, hyperparameters, seeding, prediction, callbacks),
    *(evaluation, logs, saving, loading, parameters, buffers),
)
PROMISES: dict[str, Promise] = {promise.name: promise for module in _BY_SUBJECT for promise in promises_of(module)}
"""Every promise by its name, in the order of the report."""
