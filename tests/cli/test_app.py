from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.cli.app import _leaves, _parse, commands
from flowpolicies.cli.command import Command, Group
from flowpolicies.cli.listing import List

ROOT = Path(__file__).parents[2]

GROUPS: list[tuple[str, ...]] = [(), *((name,) for name, entry in commands().items() if isinstance(entry, Group))]


FLAG = re.compile(r"(?<!-)--(?:no-)?([a-z][a-z-]*) (.*?) \((?:default|required|repeatable)")


def without_metavar(text: str) -> str:
    """The help text without metavars such as INT, {None}|PATH, {a,b} or [INT [INT ...]]."""
    words = text.split()
    return " ".join(word for word in words if not (word[0] in "{[.]" or word in ("INT", "FLOAT", "STR", "PATH")))


def paths() -> Iterator[tuple[str, ...]]:
    """The words that name a command, for each command."""
    for name, entry in commands().items():
        if isinstance(entry, Group):
            yield from ((name, inner) for inner in entry.commands)
        else:
            yield (name,)


@pytest.mark.parametrize("path", [*GROUPS, *paths()], ids=" ".join)
def test_help_ends_with_examples(call: Any, path: tuple[str, ...]) -> None:
    answer = call(*path, "--help")
    assert answer.code == 0
    _, _, examples = answer.out.partition("\nexamples:\n")
    lines = examples.splitlines()
    assert 1 <= len(lines) <= 3
    for line in lines:
        assert line.startswith(f"  flowpolicies {' '.join(path)}".rstrip()) or path == ("rollout",)


@pytest.mark.parametrize("command", list(_leaves(Group("", commands()))), ids=lambda command: command.__name__)
def test_examples_are_commands(command: type[Command]) -> None:
    assert command.examples
    for line in command.examples:
        program, *words = shlex.split(line)
        assert program == "flowpolicies"
        assert isinstance(_parse(words), Command)
    assert type(_parse(shlex.split(command.examples[0])[1:])).__name__ == command.__name__


def documented() -> Iterator[tuple[str, str]]:
    """Names of files with the command lines in their code blocks, and in backticks if they have arguments."""
    for file in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = file.read_text().replace("\\\n", " ")
        blocks = re.findall(r"^flowpolicies ([^#\n]+)", text, re.MULTILINE)
        for line in {*blocks, *re.findall(r"`flowpolicies (\w+ [^`]*)`", text)}:
            yield file.name, line.partition(" && ")[0]


def test_commands_of_the_documentation_are_understood() -> None:
    found = set(documented())
    assert len({file for file, _ in found}) > len(ALGORITHMS)  # Each algorithm's page has one.
    for file, line in found:
        try:
            assert isinstance(_parse(shlex.split(line)), Command)
        except (SystemExit, ValueError) as error:
            raise AssertionError(f"{file}: flowpolicies {line}") from error


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_hyperparameter_is_a_flag_with_its_meaning(call: Any, name: str) -> None:
    text = " ".join(call("train", name, "--help").out.replace("│", " ").split())
    meanings = {flag: without_metavar(rest) for flag, rest in FLAG.findall(text)}
    for field in dataclasses.fields(ALGORITHMS[name].Config):
        assert len(meanings[field.name.replace("_", "-")].split()) >= 2
    assert meanings["horizon"].startswith("Length H of an action chunk, in environment steps:")  # An inherited field.
    assert meanings["batch-size"] == "Number of transitions, or of action chunks, per update."
    assert meanings["dataset"].startswith("Address of the dataset: ogbench:NAME")


def test_rollout_is_another_name_of_data_collect(call: Any, policy: Path, tmp_path: Path) -> None:
    words = ("--policy", policy, "--env", "Pendulum-v1", "--episodes", 1, "--out")
    answer = call("rollout", *words, f"npz:{tmp_path}/a.npz")
    assert answer.code == 0, answer.err
    assert call("data", "collect", *words, f"npz:{tmp_path}/b.npz").out == answer.out.replace("a.npz", "b.npz")


def test_the_help_of_the_program_groups_its_commands_by_task(call: Any) -> None:
    answer = call("--help")
    assert (answer.code, answer.err) == (0, "")
    blocks = [block.splitlines() for block in answer.out.split("\n\n")]
    named = {block[0]: [line.split()[0] for line in block[1:] if line[2] != " "] for block in blocks if len(block) > 1}
    assert named["Evaluate and compare:"] == ["evaluate", "compare", "plot", "report", "diagnose", "rollout"]
    assert "Other commands:" not in named  # Each command has a task.
    assert sorted(name for key, names in named.items() if key != "examples:" for name in names) == sorted(commands())
    assert call("-h") == answer


def test_flags_reach_the_fields() -> None:
    words = (
        "train fql --dataset npz:a --alpha 3.0 --actor-hidden-dims 128 64 --no-value-layer-norm --gamma 0.9 --seed 4"
    )
    command: Any = _parse(words.split())
    meant = ALGORITHMS["fql"].Config(alpha=3.0, actor_hidden_dims=(128, 64), value_layer_norm=False)
    assert vars(command.hyperparameters) == vars(meant)
    assert (command.sb3_hyperparameters.gamma, command.settings.seed, command.settings.dataset) == (0.9, 4, "npz:a")
    assert command.algorithm == "fql"


def test_a_misspelt_flag_gets_a_suggestion(call: Any) -> None:
    answer = call("train", "fql", "--dataset", "npz:a", "--alhpa", "3")
    assert answer.code == 2
    assert "Perhaps you meant" in answer.err
    assert "--alpha FLOAT" in answer.err


def test_a_misspelt_algorithm_gets_a_suggestion(call: Any) -> None:
    answer = call("train", "fqll", "--dataset", "npz:a")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("flowpolicies: unknown algorithm 'fqll' (known: ")
    assert answer.err.endswith("Did you mean 'fql'?\n")


def test_the_version(call: Any) -> None:
    assert call("--version") == (0, f"flowpolicies {version('flowpolicies')}\n", "")


def test_a_misspelt_command_gets_the_list(call: Any) -> None:
    answer = call("trian")
    assert answer.code == 2
    assert "Available subcommands: train, watch, evaluate" in answer.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data", "show", "npz:missing.npz"), "flowpolicies: no such file: 'missing.npz'."),
        (("data", "show", "ogbnch:x"), "Did you mean 'ogbench'?"),
        (("train", "fql", "--dataset", "npz:missing.npz"), "flowpolicies: no such file: 'missing.npz'."),
        (("train", "fql", "--dataset", "npz:a", "--horizon", "0"), "horizon must be at least 1, got 0"),
        (("train", "bc", "--dataset", "npz:a", "--batch-size", "0"), "batch_size must be at least 1, got 0"),
        (("train", "bc", "--dataset", "npz:a", "--log-every", "0"), "log_every must be at least 1, got 0"),
        (("train", "bc", "--dataset", "npz:a", "--device", "gpu"), "unknown device 'gpu': pass 'auto', 'cpu'"),
        (("evaluate", "missing.safetensors", "--env", "Pendulum-v1"), "flowpolicies: no policy file"),
    ],
)
def test_errors_are_one_message(call: Any, words: tuple[str, ...], message: str) -> None:
    answer = call(*words)
    assert (answer.code, answer.out) == (2, "")
    assert message in " ".join(answer.err.replace("│", "").split())
    assert "dummy" not in answer.err
    assert "Traceback" not in answer.err


def test_debugging_shows_the_traceback(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("data", "show", "npz:missing.npz")
    shown = [call(*words, "--debug")]
    for value in "01":
        monkeypatch.setenv("FLOWPOLICIES_DEBUG", value)
        shown.append(call(*words))
    assert [answer.err.startswith("Traceback") for answer in shown] == [True, False, True]
    assert {answer.code for answer in shown} == {2}


def test_bugs_are_not_dressed_up(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("flowpolicies.data.load_dataset", fail)
    answer = call("data", "show", "pendulum:a")
    assert answer.code == 2  # 1 would mean that the check has found something.
    assert answer.err.startswith("Traceback")
    assert "AssertionError: a bug" in answer.err
    assert answer.err.splitlines()[-1].startswith("flowpolicies: this is a bug")


def test_ctrl_c_is_exit_code_130(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowpolicies.data.load_dataset", stop)
    assert call("data", "show", "pendulum:a").code == 130


@pytest.mark.slow
def test_the_package_is_a_program_whose_reader_may_leave() -> None:
    program = shlex.join((sys.executable, "-m", "flowpolicies"))
    done = subprocess.run(f"{program} list | true", shell=True, capture_output=True, text=True)
    assert done.stderr == ""


def test_the_package_is_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "flowpolicies", "list", "algorithms"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "fql" in done.stdout


def test_warnings_are_one_line(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object) -> None:
        warnings.warn("the data are generated", stacklevel=2)

    monkeypatch.setattr(List, "run", warn)
    monkeypatch.setattr(warnings, "showwarning", lambda *parts: print(warnings.formatwarning(*parts[:4]), end=""))
    usual = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert call("list").out == "warning: the data are generated\n"
    assert warnings.formatwarning is usual
