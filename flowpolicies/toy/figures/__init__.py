"""The figures of the 2D experiments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from flowpolicies.toy.figures import animation, curves, planes
from flowpolicies.toy.results import ToyResults


def drawings(results: ToyResults) -> dict[str, Callable[[Path], Path]]:
    """Name of each figure that can be made of the results, and what draws it into a path."""
    found: dict[str, Callable[[Path], Path]] = {"data.png": partial(planes.draw_data, results)}
    for dataset in results.datasets:
        found[f"samples-{dataset}.png"] = partial(planes.draw_samples, results, dataset)
        for method in results.methods:
            if any(results.get(dataset, method, kind) for kind in results.kinds):
                name = f"method-{dataset}-{method}.png"
                found[name] = partial(planes.draw_method, results, dataset, method)
        if any(results.get(dataset, method, one) for method in results.methods for one in results.coefficients[:1]):
            found[f"evolution-{dataset}.gif"] = partial(animation.draw_evolution, results, dataset)
        if results.get(dataset, "qflow", "cloning"):
            found[f"paths-{dataset}.png"] = partial(planes.draw_paths, results, dataset)
            found[f"velocity-{dataset}.png"] = partial(planes.draw_velocity, results, dataset)
            found[f"value-{dataset}.png"] = partial(planes.draw_value, results, dataset)
    if "qflow" in results.methods and results.coefficients:
        found["consistency.png"] = partial(curves.draw_consistency, results)
    if results.coefficients:
        found["gradients.png"] = partial(curves.draw_gradients, results)
    if results.costs:
        found["costs.png"] = partial(curves.draw_costs, results)
    return found
