"""Compares the returns of training in float32 and with matrix products in bfloat16, over three seeds of one task.

    python tools/bf16_returns.py [--task 1] [--seeds 0 1 2] [--steps 8000] [--out docs/results]

It trains Q-Flow on the demo's dataset (pointmaze-medium-navigate, generated if it is not there) with the demo's
hyperparameters, six runs in all, and writes bf16.json and bf16.png. A run that was interrupted continues. Precision
"bf16" is to be recommended nowhere before the two curves agree within their intervals.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flowpolicies.data import generate_dataset
from flowpolicies.files import write_json
from flowpolicies.record import describe_hardware, describe_software
from flowpolicies.reproduction.demo import DemoSettings, address
from flowpolicies.reproduction.jobs import Job, flags, run_side_by_side
from flowpolicies.training.plots import plot_learning_curves
from flowpolicies.training.runs import RunFolder

PRECISIONS = ("fp32", "bf16")


def job(settings: DemoSettings, task: int, seed: int, precision: str, data_dir: Path) -> tuple[Job, RunFolder]:
    """The training of one seed in one precision."""
    folder = RunFolder(settings.run_dir / f"{precision}-seed{seed}")
    values: dict[str, Any] = {
        name: getattr(settings, name)
        for name in (
            "steps", "eval_every", "eval_episodes", "batch_size", "learning_rate", "horizon", "flow_steps", "gamma",
            "tau", "guidance_lambda",
        )
    }  # fmt: skip
    values |= {"dataset": address(settings, task), "data_dir": data_dir, "run_dir": folder.path, "resume": True}
    values |= {"actor_hidden_dims": (settings.width,) * 2, "value_hidden_dims": (settings.width,) * 2}
    command = ("train", "qflow", *flags(values | {"seed": seed, "precision": precision}))
    return Job(folder.path.name, (command,), settings.run_dir / f"{folder.path.name}.log"), folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=int, default=1, help="Number of the task, 1 to 5.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=DemoSettings.steps, help="Gradient steps of each run.")
    parser.add_argument("--workers", type=int, default=2, help="Number of runs side by side, each on one thread.")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    settings = DemoSettings(steps=arguments.steps, run_dir=Path("runs/bf16"))
    data_dir = generate_dataset(
        address(settings, arguments.task),
        num_episodes=settings.episodes,
        seed=settings.seed,
        workers=arguments.workers,
        data_dir=settings.data_dir.expanduser() / f"{settings.episodes}-episodes-seed{settings.seed}",
    ).parent
    cells = {(p, s): job(settings, arguments.task, s, p, data_dir) for s in arguments.seeds for p in PRECISIONS}
    failed = []

    def report(outcome: Any) -> None:
        print(f"{outcome.job.name}: {'done' if outcome.code == 0 else f'failed, see {outcome.job.log}'}", flush=True)
        failed.extend([outcome.job.name] if outcome.code else [])

    run_side_by_side([one for one, _ in cells.values()], arguments.workers, report, threads=1)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
    rows = {p: [row for s in arguments.seeds for row in cells[p, s][1].read_evaluations()] for p in PRECISIONS}
    found = {
        precision: {
            str(seed): [{"step": row.step, "return": row.mean_return, "success": row.success} for row in evaluations]
            for seed in arguments.seeds
            if (evaluations := cells[precision, seed][1].read_evaluations())
        }
        for precision in PRECISIONS
    }
    record = {"software": describe_software(), "hardware": describe_hardware(), "task": arguments.task}
    write_json(arguments.out / "bf16.json", {**record, "steps": arguments.steps, "runs": found})
    plot_learning_curves(rows, arguments.out / "bf16.png", title=f"Q-Flow, {address(settings, arguments.task)}")
    for precision in PRECISIONS:
        last = [evaluations[-1] for evaluations in found[precision].values()]
        shown = ", ".join(f"{entry['success']:.2f} ({entry['return']:.0f})" for entry in last)
        print(f"{precision}: success (return) after {arguments.steps} steps: {shown}")


if __name__ == "__main__":
    main()
