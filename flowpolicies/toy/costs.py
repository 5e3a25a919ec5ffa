"""Milliseconds per update against the number of flow steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.registry import get_algorithm
from flowpolicies.toy.methods import make_model
from flowpolicies.toy.settings import ToyCell, ToySettings

STEPS = (1, 5, 10, 20, 40)
"""Numbers of flow steps that are timed."""
ROUNDS = 5
"""Number of times that each update is timed, of which the shortest counts."""

CostTable = dict[str, dict[str, float]]
"""Method -> number of flow steps, as text -> milliseconds per update."""


def measure_costs(settings: ToySettings, steps: Sequence[int] = STEPS) -> CostTable:
    """Times updates of each method that has flow steps, in turn, so that other load on the machine falls on all."""
    models: dict[tuple[str, int], OfflineAlgorithm] = {}
    for method in settings.methods:
        if "flow_steps" in {field.name for field in fields(get_algorithm(method).Config)}:
            for number in steps:
                cell = ToyCell("swissroll", method, settings.coefficients[0] if settings.coefficients else "default", 0)
                models[method, number] = make_model(cell, replace(settings, flow_steps=number))
    shortest = dict.fromkeys(models, float("inf"))
    for number in range(ROUNDS + 1):
        for key, model in models.items():
            seconds = _seconds(model)
            if number > 0:  # The first update of a model prepares the next ones.
                shortest[key] = min(shortest[key], seconds)
    found: CostTable = {}
    for (method, number), seconds in shortest.items():
        found.setdefault(method, {})[str(number)] = 1000 * seconds
    return found


def _seconds(model: OfflineAlgorithm) -> float:
    began = time.perf_counter()
    model.train(gradient_steps=1)
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - began
