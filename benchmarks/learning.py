"""Trains BC, FQL, Q-Flow, RQL and QAM with three seeds each on the demo's data; docs/results/pointmaze-medium.md.

    python benchmarks/learning.py

The runs are `flowpolicies train` commands, two at a time. A run that is done is not repeated.
"""

from __future__ import annotations

import csv
import shlex
from dataclasses import asdict
from pathlib import Path

import numpy as np

from flowpolicies.data import generate_dataset
from flowpolicies.policies.evaluation import mean_interval, success_interval
from flowpolicies.record import describe_hardware, source_commit
from flowpolicies.reproduction.demo import DemoRun, DemoSettings, address, run_all
from flowpolicies.reproduction.jobs import flags
from flowpolicies.training.plots import plot_learning_curves
from flowpolicies.training.runs import RunFolder

SEEDS = (0, 1, 2)
STEPS = 6000
EPISODES = 50
TASK = 1
RUNS = Path("runs/learning")
RESULTS = Path("docs/results")
LABELS = {"bc": "BC", "fql": "FQL", "qflow": "Q-Flow", "rql": "RQL", "qam": "QAM"}
OWN = {
    "bc": (),
    "fql": ("--alpha", "1", "--normalize-q-loss"),
    "qflow": ("--guidance-lambda", "2"),
    "rql": ("--alpha", "1", "--expectile", "0.7", "--ensemble", "2"),
    "qam": ("--inv-temp", "1", "--ensemble", "2", "--rho", "0"),
}
"""Flags of each algorithm; none of them is tuned, and all have two critics to keep the runs short."""


def command(algorithm: str, seed: int, settings: DemoSettings, data_dir: Path) -> tuple[str, ...]:
    """The command line of one run."""
    width = (settings.width, settings.width)
    values = {
        "dataset": address(settings, TASK),
        "data_dir": data_dir,
        "run_dir": RUNS / f"{algorithm}-seed{seed}",
        "resume": True,
        "seed": seed,
        "steps": STEPS,
        "log_every": 100,
        "checkpoint_every": 2000,
        "eval_every": 2000,
        "eval_episodes": EPISODES,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "horizon": settings.horizon,
        "flow_steps": settings.flow_steps,
        "actor_hidden_dims": width,
    }
    if algorithm != "bc":
        values |= {"gamma": settings.gamma, "tau": settings.tau, "value_hidden_dims": width}
    return ("train", algorithm, *flags(values), *OWN[algorithm])


def main() -> None:
    settings = DemoSettings()
    data_dir = generate_dataset(
        address(settings, TASK),
        num_episodes=settings.episodes,
        seed=settings.seed,
        workers=2,
        data_dir=settings.data_dir.expanduser() / f"{settings.episodes}-episodes-seed{settings.seed}",
    ).parent
    runs = {}
    for algorithm in LABELS:
        for seed in SEEDS:
            folder = RunFolder(RUNS / f"{algorithm}-seed{seed}")
            words = command(algorithm, seed, settings, data_dir)
            runs[algorithm, seed] = DemoRun(folder, (words,), {"start": 1, f"{algorithm} update": STEPS}, folder.model)
    run_all([run for run in runs.values() if not run.result.is_file()], 2)
    rows = {key: run.folder.read_evaluations() for key, run in runs.items()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "pointmaze-medium.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["algorithm", "seed", "step", "episodes", "success", "length"])
        for (algorithm, seed), found in rows.items():
            writer.writerows([algorithm, seed, r.step, r.episodes, r.success, r.length] for r in found)
    curves = {LABELS[a]: [r for s in SEEDS for r in rows[a, s]] for a in LABELS}
    title = f"{settings.dataset}, task {TASK}, {len(SEEDS)} seeds"
    plot_learning_curves(curves, RESULTS / "pointmaze-medium.png", title=title)
    (RESULTS / "pointmaze-medium.md").write_text(page(settings, rows, runs))


def page(settings: DemoSettings, rows: dict, runs: dict) -> str:
    """The page with the results, and with the commands that made them."""
    hardware = ", ".join(f"{key} {value}" for key, value in describe_hardware().items())
    commit = source_commit(Path(__file__).parent)
    shown = {k: v for k, v in asdict(settings).items() if k in ("horizon", "width", "batch_size", "gamma", "tau")}
    lines = [
        f"# Learning on locally generated {settings.dataset}, task {TASK}",
        "",
        f"Success in percent after {STEPS} gradient steps, {EPISODES} sampled episodes per seed. The interval over",
        "seeds is a bootstrap of their means (unreliable with three seeds); the one over episodes is Wilson's.",
        "",
        "| algorithm | "
        + " | ".join(f"seed {s}" for s in SEEDS)
        + " | mean [95 % over seeds] | pooled [95 % over episodes] |",
        "|---|" + "---|" * (len(SEEDS) + 2),
    ]
    for algorithm, label in LABELS.items():
        last = [rows[algorithm, seed][-1] for seed in SEEDS]
        found = mean_interval(np.array([r.success for r in last]))
        pooled = success_interval(round(sum(r.success * r.episodes for r in last)), sum(r.episodes for r in last))
        cells = [f"{100 * r.success:.0f}" for r in last]
        cells += [f"{100 * i.mean:.0f} [{100 * i.low:.0f}, {100 * i.high:.0f}]" for i in (found, pooled)]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "![learning curves](pointmaze-medium.png)",
        "",
        "All evaluations: [pointmaze-medium.csv](pointmaze-medium.csv).",
        "",
        f"Made by `python benchmarks/learning.py` at commit `{commit}`, one thread per run, on",
        f"{hardware}.",
        f"Data: {settings.episodes} episodes of 1,001 steps from OGBench's oracle, seed {settings.seed}. The demo's",
        f"settings: `{shown}`.",
        "Every algorithm ran at one setting that was not tuned, so the table shows that they run and learn, but not",
        "which of them is best; the published comparisons use a hundred times the steps. The commands, for seed 0:",
        "",
        "```sh",
        *(shlex.join(("flowpolicies", *runs[algorithm, 0].commands[0])) for algorithm in LABELS),
        "```",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
