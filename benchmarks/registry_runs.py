"""The runs of benchmarks/registry.py: their settings, their commands, and what came out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pendulum import ENV

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.files import write_json
from flowpolicies.policies.evaluation import Interval, mean_interval
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.runs import RunFolder

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
OWN: dict[str, dict[str, str]] = {
    "bdpo": {
        "--pretrain-steps": "1000",
        "--actor-warmup": "200",
        "--actor-learning-rate": "0.0003",
        "--next-samples": "4",
    },
    "cac": {"--curriculum-steps": "2500"},
    "qgpo": {
        "--pretrain-steps": "1000",
        "--critic-steps": "1000",
        "--energy-hidden-dims": "64 64",
        "--num-samples": "4",
        "--support-steps": "5",
        "--solver-steps": "10",
    },
    "qipo_full": {"--pretrain-steps": "800", "--critic-warmup": "500", "--renew-every": "400"},
}
"""Phases, which else take longer than the whole run, and what goes with them; sizes that the budget pays. Not tuned."""
ADAPTED_STEPS = 7500
ADAPTED: dict[str, dict[str, str]] = {
    "bdpo": {},
    "cac": {
        "--critic-learning-rate": "0.001",
        "--curriculum-steps": "100000",
        "--ema": "0.95",
        "--ema-every": "1",
        "--ema-start": "0",
        "--eta": "0.1",
    },
    "dac_d4rl": {},
    "diffusion_ql": {},
    "idql": {"--ema": "0.99", "--expectile": "0.9"},
    "qgpo": {"--actor-learning-rate": "0.001"},
    "rebrac": {"--alpha-actor": "0.1"},
}
"""What fails with the settings of all gets `ADAPTED_STEPS`, LayerNorm in its critics, and these."""
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

    @property
    def commit(self) -> str:
        """Of the code that ran."""
        return str(self.folder.read_config()["software"]["flowpolicies_commit"])

    def evaluation(self) -> EvaluationRow | None:
        """The one at the end; None if the command failed."""
        return self.folder.read_evaluations()[-1] if self.is_done() else None


def make_run(settings: Settings, algorithm: str, seed: int, data: Path) -> Run:
    """One run with the settings of all."""
    return _run(settings, algorithm, algorithm, seed, data, settings.steps, OWN.get(algorithm, {}))


def make_adapted_run(settings: Settings, algorithm: str, seed: int, data: Path) -> Run:
    """One run with settings for this task."""
    own = {**OWN.get(algorithm, {}), **ADAPTED[algorithm]}
    if "value_layer_norm" in ALGORITHMS[algorithm].Config.__dataclass_fields__:
        own["--value-layer-norm"] = ""
    return _run(settings, algorithm, f"{algorithm}-adapted", seed, data, ADAPTED_STEPS, own)


def _run(settings: Settings, algorithm: str, name: str, seed: int, data: Path, steps: int, own: dict[str, str]) -> Run:
    folder = RunFolder(settings.run_dir / f"{name}-seed{seed}")
    offline, online = ("0", str(steps)) if algorithm in ONLINE else (str(steps), "0")
    words = ["train", algorithm, "--dataset", f"npz:{data}", "--env", ENV, "--run-dir", str(folder.path), "--overwrite"]
    words += ["--seed", str(seed), "--steps", offline, "--online-steps", online, "--device", "cpu"]
    words += ["--eval-every", "0", "--eval-episodes", str(settings.episodes), "--checkpoint-every", "0", *COMMON]
    fields = ALGORITHMS[algorithm].Config.__dataclass_fields__
    for field, values in SIZES.items():
        flag = f"--{field.replace('_', '-')}"
        if field in fields and flag not in own:
            words += [flag, *values]
    return Run(algorithm, seed, folder, (*words, *REWARDS, *words_of(own)))


def words_of(options: dict[str, str]) -> list[str]:
    return [word for flag, value in options.items() for word in (flag, *value.split())]


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
