"""Files of settings: `train --config`, and the `run.toml` of a run."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.cli.app import _parse
from flowpolicies.reproduction.presets import iterate_presets
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training import RunFolder, TrainSettings
from flowpolicies.training.repeating import PLACE, run_toml


def test_the_file_of_a_run_trains_the_same_run_again(call: Any, tiny_run: tuple[str, ...], tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "again")
    assert call("train", "bc", *tiny_run, "--seed", 3).code == 0
    content = tomllib.loads(first.toml.read_text())
    assert content["algorithm"] == "bc"
    assert content["settings"]["seed"] == 3
    assert content["hyperparameters"]["actor_hidden_dims"] == [16, 16]
    answer = call("train", "--config", first.toml, "--run-dir", second.path)
    assert answer.code == 0, answer.err
    records = [folder.read_config() for folder in (first, second)]
    for part in ("hyperparameters", "sb3_hyperparameters", "dataset", "env", "seed"):
        assert records[0][part] == records[1][part]
    assert first.evaluations.read_text() == second.evaluations.read_text()
    assert first.policy.read_bytes() == second.policy.read_bytes()
    assert first.toml.read_text() == second.toml.read_text()
    refused = call("train", "--config", first.toml, "--run-dir", first.path)
    assert refused.code == 2
    assert "holds a run already" in refused.err


def test_flags_override_the_file_and_the_file_overrides_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('preset = "ogbench/cube-single-play"\nalpha = 5\ngamma = 0.9\n[settings]\nsteps = 7\n')
    command: Any = _parse(["train", "fql", "--config", str(path), "--gamma", "0.8"])
    assert command.hyperparameters.alpha == 5.0
    assert command.sb3_hyperparameters.gamma == 0.8
    assert (command.settings.steps, command.settings.dataset) == (7, command.published.dataset)
    origins = {name: origin for name, _, origin in command.origins(command.published, ["--gamma", "0.8"])}
    assert [origins[name] for name in ("gamma", "alpha", "dataset", "tau")] == [
        "command line",
        "my.toml",
        "preset",
        "default",
    ]


@pytest.mark.parametrize("algorithm", ["bc", "bdpo", "cac", "qam_e", "qflow"])
def test_every_setting_survives_the_file(algorithm: str, tmp_path: Path) -> None:
    cls = ALGORITHMS[algorithm]
    preset = next((one for one in iterate_presets() if one.algorithm == algorithm), None)
    parts = {"hyperparameters": cls.Config, "sb3_hyperparameters": SB3Hyperparameters, "settings": TrainSettings}
    given = {name: kind(**({} if preset is None else preset.fields_of(kind))) for name, kind in parts.items()}
    given["settings"] = dataclasses.replace(given["settings"], data_dir=Path("data"), dataset="npz:a.npz")
    record = {name: dataclasses.asdict(part) for name, part in given.items()}
    path = tmp_path / "run.toml"
    path.write_text(run_toml(cls, {"algorithm": algorithm, "preset": None, **record}))
    command: Any = _parse(["train", "--config", str(path)])
    assert command.algorithm == algorithm
    for name, part in given.items():
        found = dataclasses.asdict(getattr(command, name)) if name == "settings" else vars(getattr(command, name))
        wanted = dataclasses.asdict(part) if name == "settings" else vars(part)
        assert {key: value for key, value in found.items() if key not in PLACE} == {
            key: value for key, value in wanted.items() if key not in PLACE
        }


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("alfa = 1", ("fql",), "fql has no setting 'alfa'. Did you mean 'alpha'?"),
        ('alpha = "much"', ("fql",), "alpha = 'much' is not a float"),
        ('algorithm = "bc"', ("fql",), "is for bc, not for fql"),
        ("alpha = 1", (), "names no algorithm"),
        ("[training]\nsteps = 1", ("fql",), "it has the table [training]; allowed are settings, sb3_hyperparameters"),
        ("algorithm = 3", (), "'algorithm' must be a name, got 3"),
        ("alpha = ", ("fql",), "'a.toml'"),
    ],
)
def test_wrong_files(
    call: Any, text: str, words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text(text)
    answer = call("train", *words, "--config", "a.toml")
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    answer = call("train", "--config", "b.toml")
    assert "no configuration file 'b.toml'. Did you mean 'a.toml'?" in answer.err
