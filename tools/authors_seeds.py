"""Trains many seeds of a setting of authors_learning.py in one vectorised update, as a GPU does best.

    python tools/authors_seeds.py base --seeds 20 --steps 24000 --device cuda --workers 4

The policies are evaluated meanwhile by processes on the CPU: after as many updates as `authors_learning.py run` does,
and in the same episodes. `authors_learning.py report` reads the results, RUN_DIR/SETTING-seedN/run.json, beside its own
runs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from authors_learning import BASE, MAZE, OTHERS, SETTINGS, SHARED, Other

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm
from flowpolicies.data import generate_dataset, load_dataset
from flowpolicies.files import write_json
from flowpolicies.messages import duration
from flowpolicies.policies import FlowPolicy
from flowpolicies.policies.evaluation import evaluate
from flowpolicies.record import describe_hardware, describe_software
from flowpolicies.training.callbacks import evaluation_seed
from flowpolicies.training.envs import make_vec_env
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.seeds.together import update_together

EPISODES = 20
LOG_EVERY = 500
LOGGED = ("critic/loss", "critic/q_mean")


def success_of(path: Path, address: str, seed: int, step: int) -> float:
    """Success rate of a policy file, in the episodes in which a training evaluates after `step` updates."""
    torch.set_num_threads(1)
    env = make_vec_env(address, EPISODES, processes=1)
    found = evaluate(FlowPolicy.load(path, device="cpu"), env, EPISODES, seed=evaluation_seed(seed, "offline", step))
    env.close()
    assert found.successes is not None
    return float(found.successes.mean())


def make_models(setting: str, arguments: argparse.Namespace) -> tuple[list[OfflineAlgorithm], Other]:
    """The models of all seeds, which share the dataset, and what they are trained on."""
    other = OTHERS.get(setting) or Other(setting, "qflow", SETTINGS[setting], MAZE)
    data, shared = other.data, BASE if other.algorithm == "qflow" else SHARED
    folder = arguments.run_dir / "data"
    generate_dataset(data.address, num_episodes=data.episodes, seed=0, workers=arguments.workers, data_dir=folder)
    dataset = load_dataset(data.address, data_dir=folder)
    options: dict[str, Any] = {**shared, **other.options, "device": arguments.device, "compile": arguments.compile}
    models: list[OfflineAlgorithm] = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        models.append(get_algorithm(other.algorithm)(dataset=dataset, seed=seed, **options))
        models[-1].transitions.share_dataset(models[0].transitions)
        models[-1].learn_offline(0)  # Makes the logger that an update writes to.
    return models, other


def train(arguments: argparse.Namespace) -> None:
    """Trains, evaluates and records all seeds."""
    models, other = make_models(arguments.setting, arguments)
    folders = [RunFolder(arguments.run_dir / f"{arguments.setting}-seed{model.seed}") for model in models]
    for folder in folders:
        folder.path.mkdir(parents=True)
    together, every, begin = update_together(models), arguments.eval_every or other.data.eval_every, time.perf_counter()
    logs: list[dict[int, dict[str, float]]] = [{} for _ in models]
    jobs: list[dict[int, Future[float]]] = [{} for _ in models]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
        for step in range(1, arguments.steps + 1):
            together.train()
            if step % LOG_EVERY == 0:
                for model, log in zip(models, logs, strict=True):
                    means = model._means.pop()
                    log[step] = {name: means[name] for name in LOGGED if name in means}
                used = time.perf_counter() - begin
                left = duration(used / step * (arguments.steps - step))
                print(f"{arguments.setting}: {step:,} of {arguments.steps:,} updates, {left} left", flush=True)
                write(arguments, folders, logs, jobs, used)
            if step % every == 0:
                for model, folder, own in zip(models, folders, jobs, strict=True):
                    path = folder.policy.with_name(f"policy-{step}.safetensors")
                    model.policy.save(str(path))
                    own[step] = pool.submit(success_of, path, other.data.address, model.seed, step)
        seconds = time.perf_counter() - begin
    write(arguments, folders, logs, jobs, seconds)
    for folder, own in zip(folders, jobs, strict=True):
        folder.policy.with_name(f"policy-{max(own)}.safetensors").replace(folder.policy)
    print(json.dumps({"setting": arguments.setting, "seconds": seconds}))


def write(
    arguments: argparse.Namespace,
    folders: Sequence[RunFolder],
    logs: Sequence[Mapping[int, Mapping[str, float]]],
    jobs: Sequence[Mapping[int, Future[float]]],
    seconds: float,
) -> None:
    """Records the results so far."""
    record = {"software": describe_software(), "hardware": describe_hardware(), "device": arguments.device}
    record |= {"together": len(folders), "seconds": round(seconds, 1)}
    for folder, log, own in zip(folders, logs, jobs, strict=True):
        success = {step: job.result() for step, job in own.items() if job.done()}
        write_json(folder.path / "run.json", {**record, "success": success, "log": log})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=(*SETTINGS, *OTHERS))
    parser.add_argument("--run-dir", type=Path, default=Path("runs/authors"))
    parser.add_argument("--seeds", type=int, default=20, help="Number of seeds.")
    parser.add_argument("--first", type=int, default=0, help="The first seed.")
    parser.add_argument("--steps", type=int, default=24_000, help="Number of updates.")
    parser.add_argument("--eval-every", type=int, default=None, help="Updates between evaluations; by default 4,000.")
    parser.add_argument("--workers", type=int, default=2, help="Number of processes that evaluate.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="Compile the updates.")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
