"""What is said about compared runs: the numbers of each label, and what one has to know about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flowpolicies.policies.intervals import Interval

if TYPE_CHECKING:
    from flowpolicies.comparison.scores import ScoreTable

Summary = dict[str, dict[str, Any]]
"""Label -> number of runs, mean, interquartile mean, and probability of improvement; None for what has no meaning."""


def summarize(comparison: ScoreTable, baseline: str) -> Summary:
    """The numbers of each label, over the tasks that all labels have."""
    from flowpolicies.comparison.statistics import interquartile_mean, mean_over_tasks, probability_of_improvement

    found: Summary = {}
    for label, each in comparison.table.items():
        groups, averages = comparison.groups(label), comparison.common and comparison.is_on_one_scale
        better = None
        if comparison.common and label != baseline:
            better = probability_of_improvement(groups, comparison.groups(baseline))
        found[label] = {
            "runs": sum(map(len, each.values())),
            "mean": mean_over_tasks(groups) if averages else None,
            "iqm": interquartile_mean(groups) if averages else None,
            "better": better,
        }
    return found


def choose_baseline(comparison: ScoreTable, baseline: str | None) -> str:
    """The label that the others are compared with; None: that of the first run.

    Raises:
        ValueError: if no run has the label.
    """
    chosen = baseline or next(iter(comparison.table))
    if chosen not in comparison.table:
        raise ValueError(f"--baseline '{chosen}' is no label of these runs: {', '.join(comparison.table)}.")
    return chosen


def notes(comparison: ScoreTable, mixed: dict[str, dict[str, list[Any]]]) -> Iterator[str]:
    """Sentences about what the numbers leave out.

    Args:
        mixed: what `mixed_settings` finds in the runs.
    """
    if not comparison.common:
        yield "no environment has runs of all labels, so there are no numbers over all of them."
    elif left_out := [name for name in comparison.environments if name not in comparison.common]:
        yield f"numbers over all tasks leave out those that some label has no runs in: {', '.join(left_out)}."
    if comparison.common and not comparison.is_on_one_scale:
        yield "returns of several environments have different scales and are not averaged."
    if single := comparison.single():
        label, name = single[0]
        more = f" and {len(single) - 1} others" if len(single) > 1 else ""
        yield f"one run says nothing about other seeds, so {label} in {name}{more} has no interval. Train more seeds."
    for label, settings in mixed.items():
        names = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in settings.items())
        yield f"the runs of '{label}' in one environment differ in {names}. Labels, LABEL=PATH, keep them apart."


def interval_text(interval: Interval | None) -> str:
    """An interval, or its mean where the bounds are unknown, or a dash."""
    if interval is None:
        return "-"
    return str(interval).partition(" ")[0] if interval.low != interval.low else str(interval)
