"""Which command lines are answered without importing torch, Stable-Baselines3 or Matplotlib, which takes seconds.

Imports are counted, not timed: one process runs all of these lines, and tells after each of them what it has imported.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from flowpolicies.cli.app import commands
from flowpolicies.cli.command import Group

HEAVY = ("torch", "stable_baselines3", "matplotlib", "scipy", "tensorboard", "pandas")

SCRIPT = f"""
import contextlib, io, json, shlex, sys
import flowpolicies
answers, known = {{}}, set()
for line in ["import", *json.load(sys.stdin)]:
    out, err, code = io.StringIO(), io.StringIO(), None
    if line != "import":
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            from flowpolicies.cli import main
            code = main(shlex.split(line))
    heavy = [name for name in {HEAVY} if name in sys.modules and name not in known]
    answers[line] = [code, out.getvalue(), err.getvalue(), heavy]
    known |= set(heavy)
print(json.dumps(answers))
"""
"""Prints for each line: exit code, output, output of errors, and which of `HEAVY` it has imported first."""

HELP = (
    *("--help", "--version", "train --help", "train fql --help", "train dac_d4rl --help", "data --help"),
    *("data generate --help", "data collect --help", "data convert --help", "data show --help", "data check --help"),
    *(
        "watch --help",
        "evaluate --help",
        "diagnose --help",
        "compare --help",
        "plot --help",
        "report --help",
        "rollout --help",
        "export --help",
        "push --help",
        "import --help",
        "list --help",
    ),
    *("reproduce --help", "reproduce table --help", "reproduce results --help", "demo --help", "toy --help"),
    *("bench --help", "bench step --help", "bench act --help", "bench scaling --help", "bench page --help"),
    *("bench online --help", "bench replay --help"),
    *("list presets", "list tables", "list datasets", "list environments", "list generators", "list writers"),
    "train qflow --preset ogbench/cube-single-play --help",
)
"""Lines that succeed."""

ERRORS = {
    "": "Missing subcommand",
    "trian fql --dataset npz:a": "Available subcommands: train, watch, evaluate",
    "data shew npz:a": "Available subcommands: generate, collect, convert, show, check",
    "train": "Missing subcommand",
    "train qflw --dataset npz:a": "unknown algorithm 'qflw'",
    "train qflow --lerning-rate 1": "--learning-rate FLOAT",
    "train qflow --guidance-lambda x": "could not convert string to float: 'x'",
    "train qflow --q-agg median": "invalid choice 'median'",
    "train qflow --horizon 0": "horizon must be at least 1, got 0",
    "train qflow --execute 5": "execute must lie in 1..horizon=1",
    "train qflow --q-agg min --rho 1": "has no effect on the minimum over critics",
    "train qflow --encoder impalla": "unknown encoder 'impalla' (known: impala, impala_debug",
    "train qflow --gamma 2": "gamma must lie in [0, 1], got 2.0",
    "train qflow --device gpu": "unknown device 'gpu'",
    "train qflow --device cuda:x": "unknown device 'cuda:x'",
    "train qflow --preset ogbench/nope": "unknown preset 'ogbench/nope'",
    "train rql --preset ogbench/scene-play": "rql has no preset 'ogbench/scene-play'",
    "train qflow --preset auto --dataset npz:missing.npz": "has no preset for 'npz:missing.npz'",
    "train qflow": "there is no dataset for --steps 1000000",
    "train qflow --dataset npz:missing.npz": "no such file: 'missing.npz'",
    "train qflow --dataset npz:missing.npz --storage memmap": "no such file: 'missing.npz'",
    "train qflow --dataset hdf5:missing.hdf5": "no such file: 'missing.hdf5'",
    "train qflow --dataset sb3:missing.pkl": "no such file: 'missing.pkl'",
    "train qflow --dataset memmap:missing": "no dataset in 'missing'",
    "train qflow --dataset npx:missing.npz": "unknown dataset source 'npx'",
    "train qflow --dataset missing.npz": "It looks like a path: write 'npz:missing.npz'",
    "train qflow --dataset npz:data.npz --run-dir other": "exists and is not the folder of a run",
    "train qflow --dataset npz:data.npz --resume --overwrite": "pass only one of them",
    "train qflow --dataset npz:data.npz --env Pendulm-v1": "Did you mean: `Pendulum`?",
    "train qflow --dataset npz:data.npz --env ogbnch:x": "unknown environment source 'ogbnch'",
    "train qflow --dataset npz:data.npz --online-steps 5": "'npz:data.npz' does not name one. Pass --env.",
    "train qflow --dataset ogbench:cube-single-ply-v0": "Did you mean 'play'?",
    "train qflow --dataset npz:data.npz --env ogbench:nonsense": "'nonsense' is not the name of an OGBench dataset",
    "train qflow --dataset d4rl:pen-humann-v1": "Did you mean 'pen-human-v1'?",
    "data show ogbench:cube-singl-play-v0": "Did you mean 'cube-single-play-v0'?",
    "data check d4rl:nope": "unknown D4RL dataset 'nope'",
    "data generate ogbench:nonsense": "'nonsense' is not the name of an OGBench dataset",
    "evaluate x --episode 3": "--episodes INT",
    "evaluate runs/missing": "no policy file, run folder or zip of model.save() at 'runs/missing'",
    "evaluate other": "'other' is not the folder of a run",
    "evaluate flowpolicies/nope": "brings no policy 'nope'",
    "evaluate other --video a.avi": "name the video with the ending .mp4 or .gif",
    "compare missing": "'missing' is not the folder of a run",
    "plot missing": "'missing' is not the folder of a run",
    "watch missing": "'missing' is not the folder of a run: there is no such folder.",
    "watch data.npz": "'data.npz' is not the folder of a run: it is a file.",
    "watch other": "'other' is not the folder of a run: it has no config.json.",
    "watch other --every 0": "--every is the number of seconds between two looks; it must be above 0",
    "report missing": "'missing' is not the folder of a run",
    "train --config missing.toml": "no configuration file 'missing.toml'",
    "rollout --policy missing --env Pendulum-v1 --out npz:a.npz": "at 'missing'",
    "data show npz:missing.npz": "no such file: 'missing.npz'",
    "data check npz:missing.npz --html x.html": "no such file: 'missing.npz'",
    "data convert npz:missing.npz npz:other.npz": "no such file: 'missing.npz'",
    "data convert npz:data.npz npx:other.npz": "unknown dataset writer 'npx'",
    "data generate nope:x": "unknown generator source 'nope'",
    "export other --out x": "'other' is not the folder of a run",
    "push other me/x": "is not the folder of a pretrained policy",
    "push other nonsense": "is not the name of a repository",
    "import flax missing.pkl --algorithm fql": "No such file or directory: 'missing.pkl'",
    "import flax missing.pkl --algorithm nope": "checkpoints of 'nope' cannot be imported",
    "list nope": "invalid choice 'nope'",
    "reproduce table qflow-standrd": "Did you mean 'qflow-standard'?",
    "reproduce results nope": "unknown table 'nope'",
    "demo --task 1": "--tasks",
}
"""Lines with an error -> a part of its message."""

HEAVIER = "list encoders"
"""A line that imports torch, after the others."""

Answers = dict[str, tuple[int | None, str, str, list[str]]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    folder = tmp_path_factory.mktemp("here")
    (folder / "other").mkdir()
    (folder / "other" / "notes.txt").touch()
    (folder / "data.npz").touch()
    lines = json.dumps([*HELP, *ERRORS, HEAVIER])
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["data.npz", "other"], "nothing is left behind"
    answers: Answers = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("line", HELP)
def test_help_is_light(answers: Answers, line: str) -> None:
    code, out, err, heavy = answers[line]
    assert (code, err, heavy) == (0, "", [])
    assert out


@pytest.mark.parametrize("line", ERRORS)
def test_errors_before_a_run_are_light(answers: Answers, line: str) -> None:
    code, _, err, heavy = answers[line]
    assert (code, heavy) == (2, [])
    assert ERRORS[line] in " ".join(err.replace("│", " ").split())


def test_importing_the_package_is_light(answers: Answers) -> None:
    assert answers["import"][3] == []


def test_the_lines_are_of_every_command() -> None:
    tables = {name: entry.commands for name, entry in commands().items() if isinstance(entry, Group)}
    found = {*commands(), *(f"{name} {word}" for name in tables if name != "train" for word in tables[name])}
    assert found <= {line.removesuffix(" --help") for line in HELP}


def test_the_check_sees_imports(answers: Answers) -> None:
    assert "torch" in answers[HEAVIER][3]
