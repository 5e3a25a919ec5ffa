"""Makes the policies that the package brings, `flowpolicies/pretrained/NAME`: data, training, evaluation and card.

    python tools/pretrained.py [NAME ...] [--work DIR]

Every step is a command of flowpolicies, whose results stay in the working folder; what is done there is not repeated.
Each policy takes half an hour to an hour on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from flowpolicies import FlowPolicy, evaluate
from flowpolicies.core import View, ZeroNoise
from flowpolicies.policies.sharing.finding import BOX
from flowpolicies.reproduction.local.benchmark import load_benchmark
from flowpolicies.reproduction.local.plan import plan_final
from flowpolicies.reproduction.local.run import places_of
from flowpolicies.reproduction.local.settings import LocalSettings
from flowpolicies.spaces.layout import observation_dim
from flowpolicies.training import RunFolder

WORK = Path("runs/pretrained")
"""Default folder of the data and the runs."""
DEMO_DATA = Path("~/.cache/flowpolicies/demo/500-episodes-seed0").expanduser()
"""Folder of the demo's data, which are generated only once."""
EPISODES = 50
"""Number of episodes of the evaluation in the card."""


class Step(NamedTuple):
    """A command of flowpolicies, and the file that exists when it is done."""

    words: str
    done: Path


class Recipe(NamedTuple):
    """How one policy is made."""

    env: str
    """Environment of the evaluation."""
    run: Path
    """Folder of the training run whose policy it is."""
    steps: tuple[Step, ...]
    """Commands that make the data and the run."""


def recipes(work: Path) -> Mapping[str, Recipe]:
    """The policies of the package by name."""
    return {
        "pointmaze-medium-qflow": _pointmaze(work / "pointmaze"),
        "cube-single-ifql": _cube(work / "cube-single", work / "data" / "cube-single"),
        "halfcheetah-fql": _halfcheetah(work / "sac_hc", work / "data" / "halfcheetah.npz", work / "halfcheetah"),
    }


def _pointmaze(run: Path) -> Recipe:
    """Q-Flow with chunks of 20 actions, as in the demo: offline on the oracle's data, then fine-tuned online."""
    env, data = "ogbench:pointmaze-medium-navigate-singletask-task1-v0", DEMO_DATA
    train = (
        f"train qflow --dataset {env} --data-dir {data} --run-dir {run} --resume --steps 8000 --online-steps 2000"
        " --seed 0 --log-every 100 --eval-every 2000 --checkpoint-every 2000 --eval-episodes 20 --batch-size 128"
        " --learning-rate 0.001 --horizon 20 --flow-steps 5 --actor-hidden-dims 128 128 --value-hidden-dims 128 128"
        " --gamma 0.995 --tau 0.02 --guidance-lambda 2.0"
    )
    generate = f"data generate {env} --episodes 500 --seed 0 --data-dir {data}"
    return Recipe(
        env, run, (Step(generate, data / "pointmaze-medium-navigate-v0.npz"), Step(train, run / "policy.safetensors"))
    )


def _cube(run: Path, data: Path) -> Recipe:
    """IFQL with chunks of 10 actions on play data; the critics choose the best of 32 candidates."""
    env = "ogbench:cube-single-play-singletask-task2-v0"
    train = (
        f"train ifql --dataset {env} --data-dir {data} --run-dir {run} --resume --steps 12000 --seed 0"
        " --log-every 500 --eval-every 6000 --checkpoint-every 6000 --eval-episodes 20 --batch-size 256"
        " --learning-rate 0.001 --horizon 10 --flow-steps 10 --actor-hidden-dims 192 192 --value-hidden-dims 128 128"
        " --gamma 0.99 --tau 0.02 --expectile 0.9 --num-samples 32"
    )
    generate = f"data generate {env} --episodes 400 --seed 0 --data-dir {data}"
    return Recipe(env, run, (Step(generate, data / "cube-single-play-v0.npz"), Step(train, run / "policy.safetensors")))


def _halfcheetah(expert: Path, data: Path, run: Path) -> Recipe:
    """FQL, whose policy is one step, on episodes of a SAC policy that was trained for 40,000 steps."""
    env = "HalfCheetah-v5"
    sac = (
        f"train sac --env {env} --steps 0 --online-steps 40000 --run-dir {expert} --resume --learning-rate 0.001"
        " --batch-size 256 --actor-hidden-dims 128 128 --value-hidden-dims 128 128 --learning-starts 5000"
        " --eval-every 20000 --eval-episodes 5 --checkpoint-every 20000 --no-save-replay-buffer"
    )
    collect = f"data collect --policy {expert} --env {env} --episodes 100 --seed 1 --out npz:{data}"
    train = (
        f"train fql --dataset npz:{data} --env {env} --run-dir {run} --resume --steps 10000 --seed 0 --log-every 500"
        " --eval-every 5000 --eval-episodes 5 --checkpoint-every 5000 --batch-size 256 --learning-rate 0.001"
        " --actor-hidden-dims 128 128 --value-hidden-dims 128 128 --flow-steps 5 --alpha 30 --normalize-q-loss"
    )
    done = Step(train, run / "policy.safetensors")
    return Recipe(env, run, (Step(sac, expert / "checkpoints" / "step_000040000.zip"), Step(collect, data), done))


def local_recipe(dataset: str, task: int, algorithm: str, value: float, seed: int) -> Recipe:
    """A run of the local benchmark, which is not repeated where `flowpolicies reproduce table local` has made it.

    Args:
        value: the chosen value of the swept hyperparameter.
    """
    benchmark = load_benchmark()
    places = places_of(benchmark, LocalSettings())
    runs = plan_final(benchmark, places, dataset, {algorithm: value}, (seed,))
    (run,) = (run for run in runs if run.key.task == task)
    env, data = str(run.values["dataset"]), places.data_of(benchmark, dataset)
    episodes = benchmark.datasets[dataset].episodes
    generate = f"data generate {env} --episodes {episodes} --seed 0 --data-dir {data}"
    file = data / f"{env.removeprefix('ogbench:').replace(f'-singletask-task{task}', '')}.npz"
    train = Step(shlex.join(run.words), run.folder.policy)
    return Recipe(env, run.folder.path, (Step(generate, file), train))


def acting_only(policy: FlowPolicy) -> FlowPolicy:
    """A policy that acts the same, with only those networks that its sampler calls, and without slow copies."""
    view = policy.view()
    names = [name for name in policy.networks if not _acts_without(policy, name)]
    small = FlowPolicy(
        policy.observation_space,
        policy.action_space,
        networks={name: replace(policy.specs[name], target_rate=None) for name in names},
        sampler=policy.sampler,
        horizon=policy.horizon,
        execute=policy.execute,
        encoder=policy.encoder,
    )
    for name in names:
        small.networks[name].load_state_dict(view[name].module.state_dict())
    return small


def _acts_without(policy: FlowPolicy, name: str) -> bool:
    view = View({other: network for other, network in policy.view().items() if other != name})
    observation = torch.zeros(1, observation_dim(policy.observation_space))
    try:
        policy.sampler(view, observation, ZeroNoise(policy.chunk_dim))
    except (AttributeError, KeyError):
        return False
    return True


def fingerprint(policy: FlowPolicy) -> str:
    """SHA-256 of the names, shapes and values of all weights."""
    digest = hashlib.sha256()
    for key, tensor in sorted(policy.state_dict().items()):
        digest.update(f"{key} {list(tensor.shape)} ".encode() + tensor.cpu().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def make(name: str, recipe: Recipe, box: Path = BOX) -> Path:
    """Runs the steps that are not done, evaluates the policy, and writes its folder."""
    for step in recipe.steps:
        if not step.done.exists():
            _run(shlex.split(step.words))
    record = RunFolder(recipe.run).read_config()
    policy = acting_only(FlowPolicy.load(recipe.run / "policy.safetensors", "cpu"))
    evaluation = evaluate(policy, recipe.env, EPISODES, seed=0)
    print(f"{name}: {evaluation}", flush=True)
    steps = {"offline": record["settings"]["steps"], "online": record["settings"]["online_steps"]}
    folder = policy.save_pretrained(
        box / name,
        name=f"flowpolicies/{name}",
        license="mit",
        evaluation=evaluation,
        dataset=record["dataset"],
        training={
            "algorithm": record["algorithm"],
            "commands": commands(name),
            "seed": record["seed"],
            "steps": {phase: count for phase, count in steps.items() if count},
            "software": record["software"],
            "hardware": record["hardware"],
            "weights": fingerprint(policy),
        },
    )
    print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / 1000:.0f} kB", flush=True)
    return folder


def commands(name: str) -> list[str]:
    """The commands that make a policy, as the card shows them: in the default working folder."""
    steps = recipes(WORK)[name].steps
    return [f"python tools/pretrained.py {name}", *(f"flowpolicies {step.words}" for step in steps)]


def _run(words: Sequence[str]) -> None:
    print(f"flowpolicies {shlex.join(words)}", flush=True)
    subprocess.run(
        [sys.executable, "-m", "flowpolicies", *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def main() -> None:
    """Parses the command line and makes the policies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="policies to make; default: all")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the data and the runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = recipes(arguments.work)
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no recipe of {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in arguments.names or known:
        make(name, known[name])


if __name__ == "__main__":
    main()
