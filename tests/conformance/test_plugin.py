"""`pytest -p flowpolicies.conformance`, and Stable-Baselines3's own tests with another class."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stable_baselines3
from processes import Copy
from stable_baselines3 import SAC, TD3

from flowpolicies.conformance.importing import arguments_of, load_object
from flowpolicies.conformance.stand_in import put_in_place, stand_in

ROOT = Path(__file__).parents[2]


OPTIONS = "-p", "flowpolicies.conformance", "-p", "no:cacheprovider", "-q"


def pytest_run(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and the output of pytest in a folder, in a copy of this process, which has imported everything."""

    def run() -> int:
        os.chdir(folder)
        sys.path.insert(0, str(folder))  # As `python -m pytest` does.
        return pytest.main([*OPTIONS, *arguments])

    copy = Copy(run, folder.with_suffix(".log"))
    return copy.code(), copy.output


SMALL = "--sb3-arg", "policy_kwargs=dict(net_arch=[8])"


def test_one_test_per_promise_and_no_other(tmp_path: Path) -> None:
    """In a process of its own, as a user runs it."""
    (tmp_path / "test_mine.py").write_text("def test_mine(): assert False\n")
    chosen = "--sb3-class", "stable_baselines3:TD3", *SMALL, "-k", "learn_takes_a_float or state_dependent or test_mine"
    command = [sys.executable, "-m", "pytest", *OPTIONS, *chosen, "-rs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "1 passed, 1 skipped" in output
    assert "not applicable: The constructor has no argument 'use_sde'." in output


def test_failures_name_the_promise(tmp_path: Path) -> None:
    (tmp_path / "my_package.py").write_text(
        "from stable_baselines3 import SAC\n"
        "class MyAlgo(SAC):\n"
        "    def learn(self, *args, **kwargs):\n        super().learn(*args, **kwargs)\n"
    )
    chosen = "--sb3-class", "my_package:MyAlgo", *SMALL, "-k", "learn_returns_the_model"
    code, output = pytest_run(tmp_path, *chosen)
    assert code == 1
    assert "`learn` returns the model, so that calls can be chained.\nlearn returned another object" in output
    assert "test_promise[learn_returns_the_model]" in output


def test_without_a_class_the_plugin_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine(): pass\n")
    code, output = pytest_run(tmp_path)
    assert code == 0
    assert "1 passed" in output


def test_their_tests_run_with_another_class(tmp_path: Path) -> None:
    """The tests of SAC are kept, and get the class; the others are left out, and a broken module stops nothing."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_broken.py").write_text("import no_such_package\n")
    (tests / "test_theirs.py").write_text(
        "import pytest\n"
        "from stable_baselines3 import PPO, SAC\n"
        "@pytest.mark.parametrize('cls', [PPO, SAC])\n"
        "def test_of_both(cls):\n"
        "    model = cls('MlpPolicy', 'Pendulum-v1', policy_kwargs=dict(net_arch=[8]), ent_coef='auto')\n"
        "    assert type(model).__name__ == 'TD3' and issubclass(SAC, SAC) and isinstance(model, SAC)\n"
        "def test_of_sac():\n"
        "    assert SAC('MlpPolicy', 'Pendulum-v1').learning_starts == 7\n"
        "def test_of_ppo():\n    PPO\n"
        "def test_of_none():\n    pass\n"
    )
    (tmp_path / "mapping.py").write_text(
        "def translate(arguments):\n    return {k: v for k, v in arguments.items() if k != 'ent_coef'}\n"
    )
    chosen = "--sb3-class", "stable_baselines3.td3.td3:TD3", "--sb3-tests", str(tests)
    code, output = pytest_run(
        tmp_path, *chosen, "--sb3-translate", "mapping:translate", "--sb3-arg", "learning_starts=7"
    )
    assert code == 1, output
    assert "2 passed, 3 deselected" in output
    assert "1 error" in output


def test_a_stand_in_is_its_target() -> None:
    made: Any = stand_in(TD3, "SAC", {"gamma": 0.5}, lambda given: {**given, "tau": 0.25})
    model = made("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]})
    assert (made.__name__, type(model), model.gamma, model.tau) == ("SAC", TD3, 0.5, 0.25)
    assert made.load == TD3.load
    assert isinstance(model, made)
    assert issubclass(TD3, made)
    assert not issubclass(SAC, made)


def test_only_their_classes_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stable_baselines3, "SAC", SAC)
    put_in_place(TD3, "SAC", {})
    assert stable_baselines3.SAC is not SAC
    with pytest.raises(ValueError, match="stable_baselines3 has no class 'SACK'"):
        put_in_place(TD3, "SACK", {})


def test_arguments_are_literals() -> None:
    given = ["a=(8,8)", "policy_kwargs=dict(net_arch=[8], x=dict())", "name='x=y'"]
    assert arguments_of(given) == {"a": (8, 8), "policy_kwargs": {"net_arch": [8], "x": {}}, "name": "x=y"}
    for wrong in ("a", "a=open('x')", "a b=1", "a=", "a=dict(**{})"):
        with pytest.raises(ValueError, match="expected NAME=VALUE with a Python literal"):
            arguments_of([wrong])


def test_objects_are_named_by_module() -> None:
    assert load_object("stable_baselines3:SAC.load") == SAC.load
    with pytest.raises(ValueError, match="expected MODULE:NAME"):
        load_object("stable_baselines3.SAC")
    with pytest.raises(ValueError, match="the module 'stable_baselines3' has no 'SACK'"):
        load_object("stable_baselines3:SACK")
