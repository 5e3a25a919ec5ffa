"""The page of results of the local benchmark, `local.md`, and its figures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowpolicies.files import atomic_write
from flowpolicies.policies.intervals import Interval
from flowpolicies.reproduction.jobs import flags
from flowpolicies.reproduction.local.benchmark import LocalBenchmark, load_benchmark
from flowpolicies.reproduction.local.figures import draw_curves, draw_iqm
from flowpolicies.reproduction.local.plan import RunKey
from flowpolicies.reproduction.local.results import RunResult, Scores, choose
from flowpolicies.training.evaluations import Phase

MISSING = "-"
"""Cell of what was not run."""
SIZES = ("steps", "online_steps")
"""Fields of the benchmark that the command line may change."""
PHASES: Mapping[Phase, str] = {"offline": "After the offline phase", "online": "After online training"}


def write_page(benchmark: LocalBenchmark, results: Mapping[RunKey, RunResult], folder: Path) -> list[Path]:
    """Writes the page and the figures of what was run to a folder, and returns their paths."""
    scores, figures = Scores(benchmark, results), list[Path]()
    for name in benchmark.datasets:
        figures += draw_curves(scores, name, folder / f"local-{name}.png")
    figures += draw_iqm(scores, folder / "local-iqm.png")
    page = folder / "local.md"
    with atomic_write(page) as file:
        file.write(make_page(scores, results, [figure.name for figure in figures]).encode())
    return [page, *figures]


def make_page(scores: Scores, results: Mapping[RunKey, RunResult], figures: Sequence[str] = ()) -> str:
    """Text of the page.

    Args:
        results: all finished runs.
        figures: names of the figures beside the page.
    """
    benchmark = scores.benchmark
    parts = [
        _head(scores),
        _overall(scores, "local-iqm.png" in figures),
        *(_tasks(scores, phase) for phase in PHASES),
        _curves(figures),
        _hyperparameters(benchmark, results),
        _settings(benchmark),
        _origin(scores),
        _policies(scores),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(scores: Scores) -> str:
    benchmark = scores.benchmark
    planned = [cell for name, one in benchmark.datasets.items() for cell in ((name, task) for task in one.tasks)]
    whole = len(planned) * len(benchmark.algorithms) * len(scores.seeds)
    return "\n\n".join(
        [
            "# The local benchmark",
            _wrap(
                f"{len(benchmark.algorithms)} algorithms on data that this machine generated:",
                f"{benchmark.steps:,} gradient steps offline, then {benchmark.online_steps:,} environment steps",
                f"online, with the seeds {', '.join(map(str, scores.seeds))}. Scores are success in percent, the",
                f"mean of the last {benchmark.last} evaluations of a phase; brackets hold 95 % intervals.",
                "Networks, data and steps are far smaller than those of the papers: the numbers compare the",
                "algorithms at this size only.",
            ),
            _wrap(
                f"{len(scores.results)} of {whole} reported runs are done. What was not run is shown as",
                f"{MISSING!r}, and nothing is filled in.",
            ),
        ]
    )


def _overall(scores: Scores, has_figure: bool) -> str:
    cells = list(scores.cells())
    if not cells:
        return "No reported run is done yet."
    rows = []
    for name, algorithm in scores.benchmark.algorithms.items():
        online = _iqm(scores, name, "online") if algorithm.learns_online else "no online phase"
        rows.append([name, _iqm(scores, name, "offline"), online, f"{scores.core_hours(name):.2f}"])
    names = ", ".join(f"{name} {task}" for name, task in cells)
    figure = ["", "![interquartile means](local-iqm.png)"] if has_figure else []
    text = _wrap(
        "Interquartile mean over tasks and seeds, with a stratified bootstrap over seeds, of the",
        f"{len(cells)} tasks that were run: {names}. It is given for algorithms that have all runs on these tasks.",
    )
    table = _table(["algorithm", "offline", "online", "core-hours with sweep"], rows)
    return "\n".join(["## All tasks", "", text, "", *table, *figure])


def _iqm(scores: Scores, algorithm: str, phase: Phase) -> str:
    found = scores.iqm(algorithm, phase)
    return _percent(found) if found else f"{MISSING} ({scores.missing(algorithm, phase)} runs missing)"


def _tasks(scores: Scores, phase: Phase) -> str:
    cells = list(scores.cells())
    rows, all_seeds = [], len(scores.seeds)
    for name, algorithm in scores.benchmark.algorithms.items():
        if phase == "online" and not algorithm.learns_online:
            continue
        found = [(scores.mean((*cell, name), phase), len(scores.of((*cell, name), phase))) for cell in cells]
        texts = [
            _percent(mean) + (f" ({n} of {all_seeds})" if n < all_seeds else "") if mean else MISSING
            for mean, n in found
        ]
        rows.append([name, *texts])
    if not cells or all(cell == MISSING for row in rows for cell in row[1:]):
        return ""
    lines = [
        f"## {PHASES[phase]}",
        "",
        "Mean over the seeds with its bootstrap interval, which is not reliable for three seeds or fewer.",
        "",
        *_table(["algorithm", *(f"{name}, task {task}" for name, task in cells)], rows),
    ]
    return "\n".join(lines)


def _curves(figures: Sequence[str]) -> str:
    names = [name for name in figures if name != "local-iqm.png"]
    if not names:
        return ""
    return "\n\n".join(
        ["## Learning curves", *(f"![{Path(name).stem.removeprefix('local-')}]({name})" for name in names)]
    )


def _hyperparameters(benchmark: LocalBenchmark, results: Mapping[RunKey, RunResult]) -> str:
    chosen = {name: choose(benchmark, results, name) for name in benchmark.datasets}
    rows = [
        [name, f"`{one.hyperparameter}`", ", ".join(f"{value:g}" for value in one.values)]
        + [f"{chosen[dataset][name]:g}" if name in chosen[dataset] else MISSING for dataset in benchmark.datasets]
        for name, one in benchmark.algorithms.items()
    ]
    text = _wrap(
        f"Every algorithm has the same budget: {benchmark.candidates} values of one hyperparameter on the first",
        f"task of each dataset, each with seed {benchmark.sweep_seed}, which is not reported, and all",
        f"{benchmark.steps:,} offline steps. The values of weights and temperatures are a factor of ten apart,",
        "around the published ones; those of levels, flow steps and samples are around the defaults. The value",
        f"with the largest mean success of the last {benchmark.last} evaluations is used for all tasks of the",
        "dataset, offline and online. Equal ones are ranked by the mean success of all evaluations, then by the",
        "return of the last ones, then by their distance from the middle of the sweep.",
    )
    header = ["algorithm", "field", "values", *benchmark.datasets]
    return "\n".join(["## Hyperparameters", "", text, "", *_table(header, rows)])


def _settings(benchmark: LocalBenchmark) -> str:
    lines = ["## Settings", "", f"All runs, as far as the algorithm has the field: {_values(benchmark.options)}.", ""]
    for name, dataset in benchmark.datasets.items():
        size = "" if dataset.episodes is None else f", {dataset.episodes} episodes with seed 0"
        lines.append(f"- {name}: `{dataset.address}`{size}; {_values(dataset.options) or 'no other settings'}")
    lines += [f"- {name}: {_values(one.options)}" for name, one in benchmark.algorithms.items() if one.options]
    lines += ["", "All other hyperparameters have the defaults of the algorithms."]
    return "\n".join(lines)


def _values(options: Mapping[str, Any]) -> str:
    return ", ".join(
        f"`{name} = {' '.join(map(str, value)) if isinstance(value, tuple) else value}`"
        for name, value in options.items()
    )


def _origin(scores: Scores) -> str:
    origins = [result.origin for result in scores.everything]
    unknown = sum(1 for origin in origins if origin.core_seconds != origin.core_seconds)
    cut = sum(1 for origin in origins if origin.parts > 1)
    lines = [
        "## Origin",
        "",
        "The command below makes this page, and continues what is not done. All rows: [local.csv](local.csv).",
        "",
        "```sh",
        command(scores.benchmark),
        "```",
        "",
        f"- {scores.core_hours():.2f} core-hours for {len(origins)} runs, those of the sweep included",
        f"- commits: {_distinct(origin.commit for origin in origins)}",
        f"- hardware: {_distinct(origin.hardware for origin in origins)}",
    ]
    if unknown or cut:
        lines.append(
            f"- not in the core-hours: {unknown} runs that ended unobserved, and the earlier parts of {cut} that were "
            "interrupted"
        )
    return "\n".join(lines)


def command(benchmark: LocalBenchmark) -> str:
    """The command that makes the page, and continues what is not done."""
    own, declared = ({name: getattr(one, name) for name in SIZES} for one in (benchmark, load_benchmark()))
    changed = flags({name: value for name, value in own.items() if value != declared[name]})
    return " ".join(["flowpolicies reproduce table local --workers 2", *changed, "--results-dir docs/results"])


def _policies(scores: Scores) -> str:
    lines, declared = [], load_benchmark()
    if any(getattr(scores.benchmark, name) != getattr(declared, name) for name in SIZES):
        return ""  # The recipes are those of the benchmark as declared.
    for dataset in scores.benchmark.datasets:
        best = best_run(scores, dataset)
        if best is not None and best[1] > 0:
            key, score = best
            value = chosen_value(scores.benchmark, key)
            recipe = f"local_recipe({key.dataset!r}, {key.task}, {key.algorithm!r}, {value:g}, {key.seed})"
            lines.append(f'"{dataset}-{key.algorithm}": {recipe},  # {100 * score:.0f} %'.replace("'", '"'))
    if not lines:
        return ""
    text = _wrap(
        "The best runs by their last score. To bring their policies with the package, add these lines to `recipes` in",
        "tools/pretrained.py and run `python tools/pretrained.py NAME`, which trains only what is not in",
        "runs/reproduce/local:",
    )
    return "\n".join(["## Policies", "", text, "", "```python", *lines, "```"])


def best_run(scores: Scores, dataset: str) -> tuple[RunKey, float] | None:
    """The reported run of a dataset with the best score in its last phase, and that score; None without runs."""
    found = [
        (one.key, one.score("online" if one.phase("online") else "offline", scores.benchmark.last))
        for one in scores.results
        if one.key.dataset == dataset
    ]
    return max(found, key=lambda pair: pair[1], default=None)


def chosen_value(benchmark: LocalBenchmark, key: RunKey) -> float:
    """The value of the swept hyperparameter of a run."""
    algorithm = benchmark.algorithms[key.algorithm]
    return next(value for value in algorithm.values if algorithm.setting(value) == key.setting)


def _percent(interval: Interval) -> str:
    mean, low, high = (100 * value for value in interval)
    return f"{mean:.0f}" if low != low else f"{mean:.0f} [{low:.0f}, {high:.0f}]"


def _wrap(*parts: str) -> str:
    """A paragraph of lines that are not too long."""
    return textwrap.fill(" ".join(parts), 120, break_long_words=False, break_on_hyphens=False)


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(sorted(set(texts)))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
