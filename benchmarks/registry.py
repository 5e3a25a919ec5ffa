"""Every registered algorithm on Pendulum, beside a uniform random policy: docs/results/registry-pendulum.md.

    python benchmarks/registry.py --seeds 0 1 2 --parallel 2

Makes the data, runs `flowpolicies train` for every algorithm and seed, each on one thread, and writes a CSV, a page and
a picture. A run that is done is not repeated, unless its command has changed; one that crashed is tried again. What
stands in registry-pendulum.notes.toml (`algorithm = "line"`) becomes the column of diagnoses.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import tyro
from matplotlib.figure import Figure

import flowpolicies
from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.data import TransitionDataset
from flowpolicies.policies.evaluation import Interval, mean_interval
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.files import atomic_write, csv_text, write_json
from flowpolicies.training.record import describe_hardware, source_commit
from flowpolicies.training.runs import RunFolder

ENV = "Pendulum-v1"
LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Shares of random actions; as many episodes of each."""
EPISODES_PER_LEVEL = 20
NOISE = 0.3
REFERENCE_EPISODES = 100
SIZES = {
    "actor_hidden_dims": ("64", "64"),
    "value_hidden_dims": ("64", "64"),
    "ensemble": ("2",),
    "flow_steps": ("5",),
    "num_samples": ("16",),
    "horizon": ("1",),
}
"""Fields that every algorithm gets, if it has them: what the budget pays."""
COMMON = ("--batch-size", "128", "--learning-rate", "0.001", "--gamma", "0.97", "--tau", "0.02")
REWARDS = ("--reward-transform", "normalize")
"""The defaults of most algorithms expect rewards of the order of 1; evaluation reports those of the environment."""
OWN: dict[str, tuple[str, ...]] = {
    "bdpo": (
        *("--pretrain-steps", "1000", "--actor-warmup", "200", "--actor-learning-rate", "0.0003"),
        *("--next-samples", "4"),
    ),
    "cac": ("--curriculum-steps", "2500"),
    "qgpo": (
        *("--pretrain-steps", "1000", "--critic-steps", "1000", "--energy-hidden-dims", "64", "64"),
        *("--num-samples", "4", "--support-steps", "5", "--solver-steps", "10"),
    ),
    "qipo_full": ("--pretrain-steps", "800", "--critic-warmup", "500", "--renew-every", "400"),
}
"""Phases, which else take longer than the whole run, and what goes with them; sizes that the budget pays. Not tuned."""
ONLINE = ("qsm_online", "rlpd", "sac")
"""Made for interaction: as many environment steps, each with an update, instead of steps on the data alone."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to run."""

    algorithms: tuple[str, ...] = ()
    """Which to run; none: all that are registered. The page shows those that ran before as well."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the runs."""
    parallel: int = 2
    """Runs side by side, on one thread each."""
    steps: int = 2500
    """Gradient steps of a run; environment steps of those that learn online."""
    episodes: int = 20
    """Of the evaluation at the end."""
    run_dir: Path = Path("runs/registry-pendulum")
    """Data and runs."""
    results: Path = Path("docs/results")
    """Where registry-pendulum.{csv,md,png} go."""


# ---------------------------------------------------------------------- data and references


def controller(observation: np.ndarray) -> float:
    """Swing up by energy, then hold by position and velocity: about -140."""
    cosine, sine, velocity = observation.tolist()
    if cosine > 0.9 and abs(velocity) < 3:
        return float(np.clip(-10 * np.arctan2(sine, cosine) - 2 * velocity, -2, 2))
    missing = 15 - (velocity**2 / 2 + 15 * cosine)  # Up to a factor; at rest above it is 0.
    return float(np.clip(missing * (1 if velocity >= 0 else -1), -2, 2))


def roll_out(share: float, noise: float, seed: int) -> list[tuple[np.ndarray, np.ndarray, float, np.ndarray]]:
    """An episode of the controller with Gaussian noise, of whose actions a share is random instead."""
    env, rng = gym.make(ENV), np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    rows, truncated = [], False
    while not truncated:
        random = rng.random() < share
        wish = rng.uniform(-2, 2) if random else controller(observation) + noise * rng.normal()
        action = np.array([np.clip(wish, -2, 2)], np.float32)
        following, reward, _, truncated, _ = env.step(action)
        rows.append((observation, action, float(reward), following))
        observation = following
    return rows


def make_data(path: Path) -> TransitionDataset:
    """The dataset, from the file if it is there."""
    if path.is_file():
        return TransitionDataset.load(path)
    env = gym.make(ENV)
    shares = LEVELS * EPISODES_PER_LEVEL
    rows = [row for seed, share in enumerate(shares) for row in roll_out(share, NOISE, seed)]
    observations, actions, rewards, following = (np.array(column) for column in zip(*rows, strict=True))
    ends = np.arange(len(rows)) % 200 == 199
    dataset = TransitionDataset.from_arrays(
        observations,
        actions,
        rewards,
        following,
        terminations=np.zeros(len(rows), bool),
        truncations=ends,
        observation_space=env.observation_space,
        action_space=env.action_space,
        name="pendulum-mixed",
        provenance={"source": "benchmarks/registry.py", "env": ENV, "random shares": list(LEVELS)},
    )
    dataset.save(path)
    return dataset


def reference(share: float, noise: float) -> Interval:
    """Return of the uniform random policy (share 1), or of the controller, over fresh episodes."""
    seeds = range(10_000, 10_000 + REFERENCE_EPISODES)
    return mean_interval(np.array([sum(row[2] for row in roll_out(share, noise, seed)) for seed in seeds]))


# ---------------------------------------------------------------------- runs


class Run(NamedTuple):
    """One command and where it leaves things."""

    algorithm: str
    seed: int
    folder: RunFolder
    words: tuple[str, ...]

    @property
    def record(self) -> Path:
        """Words, exit code and processor seconds of the last attempt."""
        return self.folder.path.with_suffix(".json")

    @property
    def log(self) -> Path:
        return self.folder.path.with_suffix(".log")

    def read(self) -> dict[str, Any]:
        return json.loads(self.record.read_text()) if self.record.is_file() else {}

    def has_run(self) -> bool:
        """With this command, successfully or not."""
        return self.read().get("words") == list(self.words)

    def is_done(self) -> bool:
        return self.has_run() and self.read()["code"] == 0

    @property
    def seconds(self) -> float:
        return float(self.read()["seconds"])

    def evaluation(self) -> EvaluationRow | None:
        """The one at the end; None if the command failed."""
        return self.folder.read_evaluations()[-1] if self.is_done() else None


def make_run(settings: Settings, algorithm: str, seed: int, data: Path) -> Run:
    """The command line of one run."""
    folder = RunFolder(settings.run_dir / f"{algorithm}-seed{seed}")
    steps = ("0", str(settings.steps)) if algorithm in ONLINE else (str(settings.steps), "0")
    words = ["train", algorithm, "--dataset", f"npz:{data}", "--env", ENV, "--run-dir", str(folder.path), "--overwrite"]
    words += ["--seed", str(seed), "--steps", steps[0], "--online-steps", steps[1], "--device", "cpu"]
    words += ["--eval-every", "0", "--eval-episodes", str(settings.episodes), "--checkpoint-every", "0", *COMMON]
    fields = ALGORITHMS[algorithm].Config.__dataclass_fields__
    own = OWN.get(algorithm, ())
    for field, values in SIZES.items():
        flag = f"--{field.replace('_', '-')}"
        if field in fields and flag not in own:
            words += [flag, *values]
    return Run(algorithm, seed, folder, (*words, *REWARDS, *own))


def execute(run: Run) -> None:
    """Runs the command to its end, whatever that is."""
    if run.is_done():
        return
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with run.log.open("wb") as log:
        command = [sys.executable, "-m", "flowpolicies", *run.words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = code = os.waitstatus_to_exitcode(status)
    seconds = usage.ru_utime + usage.ru_stime
    write_json(run.record, {"words": list(run.words), "code": code, "seconds": seconds})
    found = run.evaluation()
    print(
        f"{run.folder.path.name}: {f'return {found.mean_return:.0f}' if found else 'FAILED'}, {seconds:.0f} s",
        flush=True,
    )


# ---------------------------------------------------------------------- results


@dataclass(frozen=True, kw_only=True)
class Result:
    """All seeds of an algorithm."""

    algorithm: str
    runs: Sequence[Run]
    random: Interval

    @property
    def returns(self) -> list[float]:
        """Of the seeds that came to an end."""
        return [found.mean_return for run in self.runs if (found := run.evaluation())]

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns)) if self.returns else -np.inf

    @property
    def better(self) -> int:
        """Seeds whose interval over episodes lies above that of the random policy."""
        return sum(found.return_low > self.random.high for run in self.runs if (found := run.evaluation()))

    def row(self, note: str) -> list[str]:
        """Cells of the page."""
        cells = [f"{found.mean_return:.0f}" if (found := run.evaluation()) else "crashed" for run in self.runs]
        interval = mean_interval(np.array(self.returns)) if len(self.returns) > 1 else None
        mean = f"{self.mean:.0f}" + (f" [{interval.low:.0f}, {interval.high:.0f}]" if interval else "")
        seconds = max(run.seconds for run in self.runs)
        verdict = "yes" if self.better == len(self.runs) else f"**no** ({self.better} of {len(self.runs)})"
        return [self.algorithm, *cells, mean if self.returns else "-", f"{seconds:.0f}", verdict, note]


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """A row per run."""
    header = [
        "algorithm",
        "seed",
        "phase",
        "steps",
        "episodes",
        "return",
        "return_low",
        "return_high",
        "seconds",
        "code",
    ]
    rows: list[list[object]] = [header]
    for result in results:
        for run in result.runs:
            found, record = run.evaluation(), run.read()
            numbers = found and (found.phase, found.step, found.episodes, *found[6:9])
            rows.append([run.algorithm, run.seed, *(numbers or ("",) * 6), round(run.seconds, 1), record["code"]])
    with atomic_write(path) as file:
        file.write(csv_text(rows).encode())


def draw(path: Path, settings: Settings, results: Sequence[Result], references: dict[str, float]) -> None:
    """A dot per seed, a bar at their mean; the best algorithm on top."""
    ranked = sorted(results, key=lambda result: result.mean)
    figure = Figure(figsize=(6.4, 1.2 + 0.2 * len(ranked)), layout="constrained")
    axes = figure.add_subplot()
    for style, (label, value) in zip(("-", "--", ":"), references.items(), strict=True):
        axes.axvline(value, color="0.35", linewidth=1, linestyle=style, label=f"{label} ({value:.0f})", zorder=1)
    random = ranked[0].random
    axes.axvspan(random.low, random.high, color="0.35", alpha=0.2, linewidth=0)
    for y, result in enumerate(ranked):
        color = "#0072B2" if result.better == len(result.runs) else "#D55E00"
        axes.plot(result.returns, [y] * len(result.returns), "o", color=color, markersize=3.5, alpha=0.8)
        if result.returns:
            axes.plot([result.mean], [y], "|", color=color, markersize=11, markeredgewidth=2)
    axes.set_yticks(range(len(ranked)), [result.algorithm for result in ranked], fontsize=8)
    axes.set_ylim(-0.7, len(ranked) - 0.3)
    axes.set_xlabel(f"Return in {ENV}, {settings.episodes} episodes per seed")
    axes.set_title(f"{settings.steps:,} steps, {len(settings.seeds)} seeds (dots) and their mean (bars)", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=200)


PAGE = """\
# Every algorithm on {env}

{count} algorithms, {seed_count} seeds, {steps:,} steps: far from what it takes to compare one with another. The table
says that each one trains from the command line, and that it learns.
**{good} of {count} beat the uniform random policy** in every seed{failed}.

| | return [95 %] |
|---|---|
| uniform random policy, {reference_episodes} episodes | {random} |
| the data, {data_episodes} episodes | {data} |
| the controller that made them, without noise, {reference_episodes} episodes | {expert} |

{table}

A seed beats the random policy if the 95 % bootstrap interval over its episodes lies above that of the random policy; an
algorithm, if all its seeds do. Each cell is the mean over {episodes} episodes with sampled actions. The interval over
seeds is a bootstrap of so few means, and not to be trusted far. Seconds are processor time of the slowest seed, with
start and evaluation.

![returns](registry-pendulum.png)

All runs: [registry-pendulum.csv](registry-pendulum.csv). Made by `{command}`
at commit `{commit}`, {parallel} runs side by side on one thread each, {minutes:.0f} minutes of processor time, on
{hardware}.

**Data.** {transitions:,} transitions in {data_episodes} episodes of 200 steps. A scripted controller (swing-up by
energy, then position and velocity) acts with Gaussian noise of {noise}; a share of its actions, {levels},
is uniformly random instead, {per_level} episodes of each. Fingerprint `{fingerprint}`.

**Settings.** One per algorithm, not tuned: the defaults, but `{common}`, and
where there is such a field {sizes}.
What has a learning rate of its own by default keeps it: the critics of `cac` and `diffusion_ql` (3e-4), the behaviour
of `qgpo` (1e-4).
Learn online instead, with {steps:,} environment steps, an update after each, and the data in the buffer: {online}.
{own}
The command of each, for the first seed:

```sh
{commands}
```
"""


def page(settings: Settings, results: Sequence[Result], dataset: TransitionDataset, expert: Interval) -> str:
    """The table, and all that is needed to make it again."""
    names, runs = [result.algorithm for result in results], [run for result in results for run in result.runs]
    failed = [result.algorithm for result in results if result.better < len(result.runs)]
    own = [f"- `{name}`: `{shlex.join(OWN[name])}`" for name in names if name in OWN]
    returns = episode_returns(dataset)
    hardware = {key: fact for key, fact in describe_hardware().items() if key != "torch_threads"}
    numbers = f"--seeds {' '.join(map(str, settings.seeds))} --steps {settings.steps} --episodes {settings.episodes}"
    return PAGE.format(
        env=ENV,
        count=len(results),
        seed_count=len(settings.seeds),
        good=len(results) - len(failed),
        failed=f"; {', '.join(failed)} did not" if failed else "",
        random=_round(results[0].random),
        data=_round(mean_interval(returns)),
        expert=_round(expert),
        table=_table(settings, results),
        command=f"python benchmarks/registry.py {numbers}",
        commit=source_commit(Path(flowpolicies.__file__).parent),
        minutes=sum(run.seconds for run in runs) / 60,
        hardware=", ".join(f"{key} {fact}" for key, fact in hardware.items()),
        data_episodes=len(returns),
        transitions=len(dataset),
        fingerprint=dataset.fingerprint[:12],
        noise=NOISE,
        levels=", ".join(f"{100 * share:.0f}" for share in LEVELS) + " %",
        per_level=EPISODES_PER_LEVEL,
        reference_episodes=REFERENCE_EPISODES,
        common=shlex.join((*COMMON, *REWARDS)),
        sizes=", ".join(f"`{field}` {' '.join(values)}" for field, values in SIZES.items()),
        online=", ".join(f"`{name}`" for name in ONLINE if name in names) or "none of these",
        own="\n".join(["Besides:", "", *own, ""]) if own else "",
        commands="\n".join(f"flowpolicies {shlex.join(result.runs[0].words)}" for result in results),
        steps=settings.steps,
        episodes=settings.episodes,
        parallel=settings.parallel,
    )


def _table(settings: Settings, results: Sequence[Result]) -> str:
    """The best first."""
    file = settings.results / "registry-pendulum.notes.toml"
    notes = tomllib.loads(file.read_text()) if file.is_file() else {}
    seeds = [f"seed {seed}" for seed in settings.seeds]
    header = ["algorithm", *seeds, "mean [95 % over seeds]", "seconds", "beats random", "diagnosis"]
    rows = [result.row(notes.get(result.algorithm, "")) for result in sorted(results, key=lambda r: -r.mean)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _round(interval: Interval) -> str:
    return f"{interval.mean:.0f} [{interval.low:.0f}, {interval.high:.0f}]"


def episode_returns(dataset: TransitionDataset) -> np.ndarray:
    """Sums of rewards over trajectories."""
    starts = np.append(0, dataset.episode_ends[:-1] + 1)
    return np.add.reduceat(dataset.rewards.astype(np.float64), starts)


def main(settings: Settings) -> None:
    data = settings.run_dir / "pendulum-mixed.npz"
    dataset = make_data(data)
    random, expert = reference(1.0, 0.0), reference(0.0, 0.0)
    print(
        f"random {_round(random)}, data {episode_returns(dataset).mean():.0f}, controller {_round(expert)}", flush=True
    )
    runs = {name: [make_run(settings, name, seed, data) for seed in settings.seeds] for name in sorted(ALGORITHMS)}
    chosen = settings.algorithms or tuple(runs)
    with ThreadPoolExecutor(settings.parallel) as pool:
        try:
            list(pool.map(execute, [runs[name][i] for i in range(len(settings.seeds)) for name in chosen]))
        finally:
            pool.shutdown(cancel_futures=True)  # After Ctrl-C, or a fault of ours, what waits is not begun.
    results = [
        Result(algorithm=name, runs=own, random=random) for name, own in runs.items() if all(r.has_run() for r in own)
    ]
    settings.results.mkdir(parents=True, exist_ok=True)
    stem = settings.results / "registry-pendulum"
    write_csv(stem.with_suffix(".csv"), results)
    references = {"random": random.mean, "data": float(episode_returns(dataset).mean()), "controller": expert.mean}
    draw(stem.with_suffix(".png"), settings, results, references)
    stem.with_suffix(".md").write_text(page(settings, results, dataset, expert))
    print(f"wrote {stem}.md")


if __name__ == "__main__":
    main(tyro.cli(Settings, config=(tyro.conf.FlagCreatePairsOff,)))
