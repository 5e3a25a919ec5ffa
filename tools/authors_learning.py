"""Compares how algorithms learn here with how the authors' code learns, seed by seed, and searches stable settings.

    python tools/authors_learning.py run base --seeds 0 1 2 3 --steps 24000
    python tools/authors_learning.py run ifql --seeds 0 1 --steps 24000
    python tools/authors_learning.py report

`run` trains Q-Flow on pointmaze-medium-navigate, task 1, of which 1,000 episodes are generated with seed 0, with the
settings that the authors' code was run with; `SETTINGS` has these and others of Q-Flow, `OTHERS` other algorithms and
the other task. Runs that exist are continued, also to more steps. `report` writes docs/results/authors.md, authors.json
and authors.png from all runs that there are, beside the results of the authors' code in docs/results/authors-jax.json.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from scipy import stats

from flowpolicies.data import generate_dataset
from flowpolicies.files import atomic_write, write_json
from flowpolicies.policies import FlowPolicy
from flowpolicies.policies.evaluation import mean_interval
from flowpolicies.record import describe_hardware, describe_software
from flowpolicies.reproduction.jobs import Job, flags, run_side_by_side
from flowpolicies.training.plots import COLORS
from flowpolicies.training.runs import RunFolder


class Data(NamedTuple):
    """A task, the number of episodes that are generated for it with seed 0, and the updates between evaluations."""

    address: str
    episodes: int
    eval_every: int


class Other(NamedTuple):
    """A run of another algorithm or on the other task: options that differ from `BASE`."""

    title: str
    algorithm: str
    options: Mapping[str, Any]
    data: Data


MAZE = Data("ogbench:pointmaze-medium-navigate-singletask-task1-v0", 1000, 4000)
CUBE = Data("ogbench:cube-single-play-singletask-task2-v0", 250, 5000)
BASE: dict[str, Any] = {
    "horizon": 10,
    "actor_hidden_dims": (128,) * 3,
    "value_hidden_dims": (128,) * 3,
    "ensemble": 2,
    "batch_size": 256,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "tau": 0.005,
    "flow_steps": 10,
    "time_dim": 64,
    "guidance_lambda": 2.0,
}
"""The setting in which the authors' code of Q-Flow was run."""
SHARED = {name: value for name, value in BASE.items() if name not in ("ensemble", "time_dim", "guidance_lambda")}
"""What all algorithms have of it."""
SCALED = {"observation_scaling": "min_max", "observation_gain": 20.0}
FASTER = {"learning_rate": 1e-3, "tau": 0.02}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "rho05": {"rho": 0.5},
    "rho1": {"rho": 1.0},
    "gam995": {"gamma": 0.995},
    "lam5": {"guidance_lambda": 5.0},
    "scaled": {"rho": 0.5, **SCALED},
    "demo": {"rho": 0.5, **SCALED, "horizon": 5, "guidance_lambda": 20.0, "best_of_n": 4, **FASTER},
}
"""Name -> what differs from `BASE`."""
OTHERS = {
    "ifql": Other("IFQL, pointmaze, expectile 0.9", "ifql", {"expectile": 0.9}, MAZE),
    "fql03": Other("FQL, pointmaze, alpha 0.3", "fql", {"alpha": 0.3}, MAZE),
    "fql3": Other("FQL, pointmaze, alpha 3", "fql", {"alpha": 3.0}, MAZE),
    "fql30": Other("FQL, pointmaze, alpha 30", "fql", {"alpha": 30.0}, MAZE),
    "rql": Other("RQL, pointmaze, alpha 1, expectile 0.7", "rql", {"alpha": 1.0, "expectile": 0.7}, MAZE),
    "cube-qflow": Other("Q-Flow, cube, lambda 5", "qflow", {"horizon": 5, "guidance_lambda": 5.0}, CUBE),
    "cube-fql": Other("FQL, cube, alpha 300", "fql", {"horizon": 5, "alpha": 300.0}, CUBE),
}
"""Name -> a run of another algorithm or on the other task."""
TD_STEPS = (5000, 10000)
"""Updates over which the TD loss is averaged."""
PLACES = ((0, 0), (0, 4), (4, 4), (8, 8), (12, 8), (20, 12))
"""Places in the maze on the way from the start to the goal at (20, 20)."""
WHOLE = 0.8
"""Success rate from which a seed counts as one that has learned the task."""


Values = dict[tuple[str, int], list[float]]
"""Setting and seed -> mean Q at each of `PLACES`."""
DIFFERS = {name: ", ".join(f"{key}={value}" for key, value in one.items()) for name, one in SETTINGS.items()}
"""Setting -> what differs from the authors', as text."""


class Run(NamedTuple):
    """What one seed did."""

    seed: int
    success: dict[int, float]
    """Success rate after so many updates."""
    log: dict[int, dict[str, float]]
    """Logged means after so many updates."""

    @property
    def td_loss(self) -> float | None:
        """Mean TD loss over `TD_STEPS`; None for a shorter run."""
        found = [row["critic/loss"] for step, row in self.log.items() if TD_STEPS[0] < step <= TD_STEPS[1]]
        return float(np.mean(found)) if max(self.log, default=0) >= TD_STEPS[1] else None


def run(arguments: argparse.Namespace) -> None:
    """Trains the seeds of a setting, or continues them."""
    algorithm, options, data = "qflow", SETTINGS.get(arguments.setting, {}), MAZE
    if arguments.setting in OTHERS:
        _, algorithm, options, data = OTHERS[arguments.setting]
    folder = generate_dataset(
        data.address, num_episodes=data.episodes, seed=0, workers=arguments.workers, data_dir=arguments.run_dir / "data"
    ).parent
    values = (BASE if algorithm == "qflow" else SHARED) | dict(options)
    values |= {"dataset": data.address, "data_dir": folder, "resume": True, "compile": "True"}
    values |= {"steps": arguments.steps, "eval_every": data.eval_every, "eval_episodes": 20, "log_every": 500}
    jobs = []
    for seed in arguments.seeds:
        one = arguments.run_dir / f"{arguments.setting}-seed{seed}"
        words = ("train", algorithm, *flags({**values, "seed": seed, "run_dir": one}))
        jobs.append(Job(one.name, (words,), one.with_suffix(".log")))
    run_side_by_side(jobs, arguments.workers, lambda outcome: print(outcome.job.name, outcome.code), threads=1)


def read_runs(run_dir: Path, setting: str) -> list[Run]:
    """The runs of a setting, in the order of their seeds."""
    folders = sorted(run_dir.glob(f"{setting}-seed*/"), key=lambda path: int(path.name.rpartition("seed")[2]))
    return [read_run(folder) for folder in folders]


def read_run(folder: Path) -> Run:
    """A run of this tool, or of authors_seeds.py."""
    if (folder / "run.json").is_file():
        found = json.loads((folder / "run.json").read_text())
        success, log = ({int(step): one for step, one in found[key].items()} for key in ("success", "log"))
        return Run(int(folder.name.rpartition("seed")[2]), success, log)
    success = {row.step: row.success for row in RunFolder(folder).read_evaluations()}
    log: dict[int, dict[str, float]] = {}
    path = RunFolder(folder).progress
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                found = {key.removeprefix("train/"): float(value) for key, value in row.items() if value}
                if "critic/loss" in found:
                    log[int(found["time/offline_steps"])] = found
    return Run(int(folder.name.rpartition("seed")[2]), success, log)


def estimate(values: Sequence[float], digits: int = 2) -> str:
    """Mean and 95 % bootstrap interval over seeds."""
    if not values:
        return "-"
    interval = mean_interval(np.array(values))
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def p_value(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided permutation test for equal means."""
    found = stats.permutation_test(
        (np.array(a), np.array(b)), lambda x, y: np.mean(x) - np.mean(y), n_resamples=20_000, rng=0
    )
    return float(found.pvalue)


def at(runs: Sequence[Run], step: int) -> list[float]:
    return [run.success[step] for run in runs if step in run.success]


def losses(runs: Sequence[Run]) -> list[float]:
    return [loss for run in runs if (loss := run.td_loss) is not None]


def rows_of_settings(found: Mapping[str, Sequence[Run]]) -> list[str]:
    """The table of settings, in Markdown."""
    steps = sorted({step for runs in found.values() for run in runs for step in run.success})
    lines = [
        "| setting | seeds | "
        + " | ".join(f"success at {step:,}" for step in steps)
        + " | seeds at 0.8 or more, last |",
        "|---" * (3 + len(steps)) + "|",
    ]
    for name, runs in found.items():
        last = max((step for step in steps if len(at(runs, step)) == len(runs)), default=0)
        whole = f"{sum(value >= WHOLE for value in at(runs, last))} of {len(runs)} at {last:,}" if last else "-"
        differs = f"`{DIFFERS[name]}`" if DIFFERS[name] else "as the authors'"
        lines.append(
            f"| {name}: {differs} | {len(runs)} | " + " | ".join(_cell(runs, step) for step in steps) + f" | {whole} |"
        )
    return lines


def _cell(runs: Sequence[Run], step: int) -> str:
    """Success after so many updates, with the number of seeds if some have not come so far."""
    found = at(runs, step)
    fewer = f", {len(found)} seeds" if 0 < len(found) < len(runs) else ""
    return estimate(found) + fewer


def values_on_the_way(run_dir: Path, found: Mapping[str, Sequence[Run]]) -> Values:
    """Mean Q of the policy's actions at data around `PLACES`, for each finished run."""
    with np.load(run_dir / "data" / "pointmaze-medium-navigate-v0.npz") as file:
        states = file["observations"].astype(np.float32)
    near = [states[(np.abs(states[:, :2] - place) < 1).all(1)][::20][:400] for place in PLACES]
    values: Values = {}
    for name, runs in found.items():
        for run in runs:
            path = RunFolder(run_dir / f"{name}-seed{run.seed}").policy
            if path.is_file():
                policy = FlowPolicy.load(path, device="cpu")
                values[name, run.seed] = [mean_q(policy, each) for each in near]
    return values


def rows_of_values(values: Values, found: Mapping[str, Sequence[Run]]) -> list[str]:
    """The table of values on the way, in Markdown."""
    lines = [
        "| run | " + " | ".join(f"({x}, {y})" for x, y in PLACES) + " | success at the end |",
        "|---" * (len(PLACES) + 2) + "|",
    ]
    for (name, seed), line in values.items():
        success = next(run.success for run in found[name] if run.seed == seed)
        cells = " | ".join(f"{value:.0f}" for value in line)
        lines.append(f"| {name}, seed {seed} | {cells} | {success[max(success)]:.2f} |")
    return lines


def mean_q(policy: FlowPolicy, states: np.ndarray) -> float:
    """Mean Q of actions of the policy in states `[N, O]`."""
    with torch.no_grad():
        observations = torch.from_numpy(states)
        actions = policy.sampler(policy.view(), observations, policy.noise())
        return float(policy.view()["critic"](observations, actions).mean())


def comparison(theirs: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    """The table of ours beside theirs, in Markdown."""
    lines = ["| | authors' code, JAX | here | p |", "|---|---|---|---|"]
    pairs = [(f"success at {int(step):,}", values, at(runs, int(step))) for step, values in theirs["success"].items()]
    pairs.append(("TD loss, updates 5,000 to 10,000", theirs["td_loss"], losses(runs)))
    for name, a, b in pairs:
        p = f"{p_value(a, b):.2f}" if len(a) > 1 and len(b) > 1 else "-"
        lines.append(f"| {name} | {estimate(a)}, {len(a)} seeds | {estimate(b)}, {len(b)} seeds | {p} |")
    return lines


def rows_of_others(theirs: Mapping[str, Any], found: Mapping[str, Sequence[Run]]) -> list[str]:
    """The table of other algorithms and of the other task, in Markdown: the success rate of each seed."""
    lines = ["| run | authors' code, JAX | here |", "|---|---|---|"]
    for name, runs in found.items():
        ours = {step: at(runs, step) for step in sorted({step for run in runs for step in run.success})}
        cells = [
            "; ".join(f"{int(step):,}: {', '.join(f'{value:g}' for value in values)}" for step, values in each.items())
            for each in (theirs["others"][name], ours)
        ]
        lines.append(f"| {OTHERS[name].title} | {cells[0]} | {cells[1]} |")
    return lines


def draw(theirs: Mapping[str, Any], found: Mapping[str, Sequence[Run]], values: Values, path: Path) -> None:
    """Success of the settings and of the authors' code; and the values of each seed on the way to the goal."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    groups = {"authors' code, JAX": {int(step): each for step, each in theirs["success"].items()}}
    for name, runs in found.items():
        steps = {step for run in runs for step in run.success}
        whole = {step: at(runs, step) for step in sorted(steps) if len(at(runs, step)) == len(runs) > 1}
        groups |= {"the same, here" if name == "base" else DIFFERS[name]: whole} if whole else {}
    for number, (label, each) in enumerate(groups.items()):
        _points(left, each, COLORS[number], f"{label} ({max(map(len, each.values()))} seeds)", 90.0 * number)
    left.set(xlabel="Updates", ylabel="Success rate (%)", title="Success, mean over seeds", ylim=(-3, 145))
    left.xaxis.set_major_formatter(EngFormatter(sep=""))
    for (name, seed), line in values.items():
        success = next(run.success for run in found[name] if run.seed == seed)
        color = COLORS[2] if success[max(success)] >= WHOLE else COLORS[1]
        if SETTINGS[name].get("gamma") is None:  # Values of another discount are others.
            right.plot(range(len(PLACES)), line, color=color, alpha=0.7, linewidth=1.6, marker="o", markersize=3)
    right.plot([], [], color=COLORS[2], label="seeds that succeed")
    right.plot([], [], color=COLORS[1], label="seeds that fail")
    right.set_xticks(range(len(PLACES)), [f"({x}, {y})" for x, y in PLACES])
    right.set(xlabel="Place in the maze, from start to goal", ylabel="Mean Q", title="Values on the way, gamma 0.99")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left", fontsize=8)
    left.set_yticks(range(0, 101, 20))
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=160)


def _points(axes: Any, values: Mapping[int, Sequence[float]], color: str, label: str, shift: float) -> None:
    """Means with intervals; `shift` moves them to the right, so that they do not hide each other."""
    intervals = {step + shift: mean_interval(100 * np.array(each)) for step, each in values.items()}
    means = np.array([i.mean for i in intervals.values()])
    spread = np.abs(np.array([(i.low, i.high) for i in intervals.values()]).T - means)
    axes.errorbar(
        list(intervals), means, spread, color=color, label=label, marker="o", markersize=4, capsize=3, elinewidth=1
    )


def report(arguments: argparse.Namespace) -> None:
    """Writes the numbers, the picture, and the tables of the page between its two marks."""
    theirs = json.loads((arguments.out / "authors-jax.json").read_text())
    found = {name: runs for name in SETTINGS if (runs := read_runs(arguments.run_dir, name))}
    others = {name: runs for name in OTHERS if (runs := read_runs(arguments.run_dir, name))}
    record = {"software": describe_software(), "hardware": describe_hardware(), "base": BASE}
    record |= {"settings": SETTINGS, "others": {name: other._asdict() for name, other in OTHERS.items()}}
    rows = {
        name: {
            run.seed: {
                "success": run.success,
                "td_loss": run.td_loss,
                "q_mean": {
                    step: round(row.get("critic/q_mean", np.nan), 3)
                    for step, row in run.log.items()
                    if step % 2000 == 0
                },
            }
            for run in group
        }
        for name, group in (found | others).items()
    }
    write_json(arguments.out / "authors.json", {**record, "runs": rows})
    values = values_on_the_way(arguments.run_dir, found)
    draw(theirs, found, values, arguments.out / "authors.png")
    page = arguments.out / "authors.md"
    before, _, rest = page.read_text().partition("<!-- tables -->")
    _, _, after = rest.partition("<!-- end of tables -->")
    parts = comparison(theirs, found["base"]), rows_of_settings(found), rows_of_values(values, found)
    parts += (rows_of_others(theirs, others),) if others else ()
    tables = "\n\n".join("\n".join(part) for part in parts)
    with atomic_write(page) as file:
        file.write(f"{before}<!-- tables -->\n\n{tables}\n\n<!-- end of tables -->{after}".encode())
    print(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/authors"))
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("run", help="Train seeds of a setting.")
    training.add_argument("setting", choices=(*SETTINGS, *OTHERS))
    training.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    training.add_argument("--steps", type=int, default=12_000, help="Number of updates.")
    training.add_argument("--workers", type=int, default=2, help="Number of runs side by side, each on one thread.")
    training.set_defaults(do=run)
    reporting = commands.add_parser("report", help="Write the page of the results.")
    reporting.add_argument("--out", type=Path, default=Path("docs/results"))
    reporting.set_defaults(do=report)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
