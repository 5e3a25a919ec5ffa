from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from tiny import pendulum_data

from flowpolicies.algorithms import ALGORITHMS, get_algorithm
from flowpolicies.reproduction.preset_files import SUITES, Preset, convert, presets_folder, split_task
from flowpolicies.reproduction.presets import (
    check_same_environment,
    find_preset,
    has_preset,
    iterate_presets,
    list_presets,
    load_preset,
    settings_of_environment,
    tasks_of,
)
from flowpolicies.training import SB3Hyperparameters, TrainSettings


def files() -> Iterator[Any]:
    for suite in presets_folder().iterdir():
        if suite.is_dir() and suite.name != "published":
            yield from suite.iterdir()


def test_every_folder_is_a_suite() -> None:
    assert {folder.name for folder in presets_folder().iterdir() if folder.is_dir()} == {*SUITES, "published"}


def test_every_preset_makes_a_configuration_and_uses_only_fields() -> None:
    for preset in iterate_presets():
        parts = (get_algorithm(preset.algorithm).Config, SB3Hyperparameters, TrainSettings)
        given = [preset.fields_of(part) for part in parts]
        for part, values in zip(parts, given, strict=True):
            made = part(**values)
            assert {name: getattr(made, name) for name in values} == values
        names = [name for values in given for name in values]
        assert sorted(names) == sorted(preset.values), preset.name  # Each is a field of exactly one.
        assert preset.sources
        for name in preset.unsupported:
            assert all(name not in part.__dataclass_fields__ for part in parts), f"{name} has become a field"


def test_every_table_of_a_file_has_a_source_and_nothing_unknown() -> None:
    """Common values are ignored for algorithms without the field, so a misspelt name would not raise an error."""
    configs = [cls.Config for cls in ALGORITHMS.values()]
    known = {
        spec.name for config in (*configs, SB3Hyperparameters, TrainSettings) for spec in dataclasses.fields(config)
    }
    known |= {"source", "notes", "unsupported", "same_as"}
    for file in files():
        for name, entry in tomllib.loads(file.read_text()).items():
            if not isinstance(entry, dict):
                assert name in ("dataset", "tasks", "default_task"), file
            elif name == "also":
                assert all(set(other) == {"source", "dataset", "algorithms"} for other in entry.values())
            else:
                assert name == "all" or name in ALGORITHMS, f"{file}: {name}"
                for table in [value for key, value in entry.items() if key.startswith("task")] or [entry]:
                    assert table["source"], f"{file}: {name}"
                    assert table.get("same_as", "qam") == "qam"
                    assert set(table) <= known, f"{file}: {name}"


def test_names() -> None:
    preset = load_preset("fql", "ogbench/antmaze-large-navigate")
    assert preset.name == "ogbench/antmaze-large-navigate-task1"
    assert preset.dataset == "ogbench:antmaze-large-navigate-singletask-task1-v0"
    assert load_preset("fql", "ogbench/cube-single-play").task == 2
    for name in ("antmaze-large-navigate-task3", "antmaze-large-navigate-singletask-task3-v0"):
        assert load_preset("fql", f"ogbench/{name}").task == 3
    assert load_preset("fql", "ogbench/antmaze-large-navigate-singletask-v0").task == 1
    assert load_preset("fql", "d4rl/antmaze-large-play").name == "d4rl/antmaze-large-play-v2"
    assert load_preset("cac", "d4rl/antmaze-large-play").name == "d4rl/antmaze-large-play-v0"
    for name in ("puzzle-4x4-play", "puzzle-4x4-play-sparse", "puzzle-4x4-play-100m-singletask-v0"):
        assert load_preset("qam", f"ogbench-advanced/{name}").name == "ogbench-advanced/puzzle-4x4-play-task4"
    assert split_task("cube-single-play-singletask-task5-v0") == ("cube-single-play", 5)
    assert split_task("cube-single-play-singletask-task5-v0,sparse=true") == ("cube-single-play", 5)


def test_layers() -> None:
    values = load_preset("rql", "ogbench-advanced/scene-play").values
    assert values["ensemble"] == 10  # The suite.
    assert values["reward_transform"] == "sparse"  # The environment.
    assert values["alpha"] == 3.0  # The algorithm in it.
    assert values["online_steps"] == 0  # The algorithm in the suite goes before the suite.
    noisy = load_preset("qam", "ogbench-advanced/scene-noisy")
    assert noisy.values == {
        **load_preset("qam", "ogbench-advanced/scene-play").values,
        "dataset": "ogbench:scene-noisy-singletask-task2-v0",
    }
    assert "reproduce_quality.py" in noisy.sources[0]


def test_auto_finds_a_preset_for_the_data_of_every_preset() -> None:
    for preset in iterate_presets():
        found = find_preset(preset.algorithm, [preset.dataset])
        assert (found.environment, found.task) == (preset.environment, preset.task)
        check_same_environment(found, preset.dataset)


def test_auto_prefers_the_standard_suite() -> None:
    address = "ogbench:antmaze-large-navigate-singletask-task3-v0"
    assert find_preset("fql", [address]).name == "ogbench/antmaze-large-navigate-task3"
    assert find_preset("qam", [address]).name == "ogbench-advanced/antmaze-large-navigate-task3"
    assert find_preset("qam", ["npz:mine.npz", address]).name == "ogbench-advanced/antmaze-large-navigate-task3"
    # Of FBRAC the standard suite has task 1 only; nobody published FQL on another task than 1 from pixels.
    assert find_preset("fbrac", [address]).name == "ogbench-advanced/antmaze-large-navigate-task3"
    assert find_preset("fbrac", [address.replace("task3", "task1")]).name == "ogbench/antmaze-large-navigate-task1"
    with pytest.raises(ValueError, match=r"fql has no preset 'ogbench-pixels/visual-scene-play-task2' .tasks: task1"):
        find_preset("fql", ["ogbench:visual-scene-play-singletask-task2-v0"])
    with pytest.raises(ValueError, match="give one of them, or name the preset"):
        find_preset("fql", [])
    with pytest.raises(ValueError, match=r"fql has no preset for 'npz:mine.npz'\. It has presets in ogbench/antmaze"):
        find_preset("fql", ["npz:mine.npz"])
    with pytest.raises(ValueError, match=r"no preset for 'npz:a'(.*?, ){7}[^,]*play and \d+ more; `flowpolicies list"):
        find_preset("fql", ["npz:a"])


@pytest.mark.parametrize(
    ("algorithm", "name", "error"),
    [
        ("fql", "ogbench/antmaze-large-navigat", "unknown preset .* Did you mean 'ogbench/antmaze-large-navigate'?"),
        ("fql", "ogbench/antmaze-larg-navigate-task3", "Did you mean 'ogbench/antmaze-large-navigate'?"),
        (
            "fql",
            "cube-single-play",
            "names are SUITE/ENVIRONMENT, and the suites are ogbench, .*'ogbench/cube-single-play'",
        ),
        ("qflo", "ogbench/scene-play", "unknown algorithm 'qflo' .* Did you mean 'qflow'"),
        ("fql", "ogbnch/cube-single-play", "Did you mean 'ogbench/cube-single-play'?"),
        ("rql", "ogbench/scene-play", "rql has no preset 'ogbench/scene-play'. It has presets in ogbench-advanced/"),
        (
            "tfql",
            "ogbench/scene-play",
            "tfql has no preset 'ogbench/scene-play'. It has presets in pendulum/mixed; `flowpolicies list",
        ),
        (
            "qam_f",
            "ogbench-advanced/cube-double-play",
            "the published runs there are plain qam, .* Train qam with this",
        ),
        ("qfql", "ogbench/scene-play-task1", "qfql has no preset 'ogbench/scene-play-task1' .tasks: task2.."),
        ("fql", "ogbench/scene-play-task6", r"tasks: task1, task2, task3, task4, task5\)"),
        ("fql", "d4rl/pen-human-v1-task1", r"tasks: none, it has no tasks\)"),
    ],
)
def test_wrong_names(algorithm: str, name: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        load_preset(algorithm, name)


@pytest.mark.parametrize(
    ("name", "address", "fits"),
    [
        ("ogbench/scene-play", "ogbench:scene-play-singletask-v0", True),
        ("ogbench/scene-play", "ogbench:scene-play-singletask-task2-v0", True),
        ("ogbench/scene-play", "ogbench:scene-noisy-singletask-task2-v0", True),
        ("ogbench/scene-play", "npz:mine.npz", True),
        ("ogbench/scene-play", "Pendulum-v1", True),
        ("ogbench-advanced/puzzle-4x4-play", "ogbench:puzzle-4x4-play-singletask-task4-v0", True),
        ("ogbench/scene-play", "ogbench:scene-play-singletask-task1-v0", False),
        ("ogbench/scene-play-task1", "ogbench:scene-play-singletask-v0", False),
        ("ogbench/scene-play", "ogbench:cube-single-play-singletask-task2-v0", False),
        ("ogbench/scene-play", "d4rl:pen-human-v1", False),
        ("d4rl/pen-human-v1", "ogbench:scene-play-singletask-v0", False),
        ("d4rl/pen-human-v1", "d4rl:pen-cloned-v1", False),
        ("d4rl/pen-human-v1", "minari:D4RL/pen/human-v2", True),
    ],
)
def test_whether_an_address_is_the_presets_environment(name: str, address: str, fits: bool) -> None:
    preset = load_preset("fql", name)
    if fits:
        check_same_environment(preset, address)
    else:
        with pytest.raises(ValueError, match=f"is for '{preset.dataset}', not for '{address}'. Give the preset of"):
            check_same_environment(preset, address)


def test_addresses_choose_the_task() -> None:
    address = "ogbench:scene-play-singletask-task5-v0"
    assert load_preset("fql", "ogbench/scene-play", [address]).task == 5
    assert load_preset("fql", "ogbench/scene-play-task1", [address]).task == 1
    assert load_preset("fql", "ogbench/scene-play", ["ogbench:cube-single-play-singletask-task5-v0"]).task == 2


def test_the_example_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "presets.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("dataset=preset.dataset", "dataset=data, batch_size=16"), {"data": pendulum_data()}, names)
    assert names["preset"].dataset == "ogbench:antmaze-large-navigate-singletask-task3-v0"
    assert names["model"].cfg.guidance_lambda == 0.2
    assert names["model"].gamma == 0.99


def test_suites_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "presets.md").read_text()
    assert tuple(re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)[: len(SUITES)]) == SUITES


def test_what_there_is() -> None:
    assert list_presets()["ogbench/cube-single-play"] == ("fql", "qflow")
    assert has_preset("cac", "ogbench/scene-play-task2")
    assert not has_preset("cac", "ogbench/scene-play-task1")
    assert tasks_of("ogbench/scene-play") == (1, 2, 3, 4, 5)
    assert tasks_of("ogbench/scene-play-task1") == tasks_of("d4rl/pen-human-v1") == ()
    common = settings_of_environment("iql", "ogbench/scene-play-task3")
    assert common.dataset == "ogbench:scene-play-singletask-task3-v0"
    assert common.values["gamma"] == 0.99
    assert "alpha" not in common.values


@pytest.mark.parametrize(
    ("hint", "value", "converted"),
    [
        (float, 3, 3.0),
        (int, 3, 3),
        (bool, True, True),
        (str, "a", "a"),
        (tuple[int, ...], [1, 2], (1, 2)),
        (float | None, "none", None),
        (float | None, 2, 2.0),
        (Literal["a", "b"], "b", "b"),
    ],
)
def test_types(hint: Any, value: Any, converted: Any) -> None:
    found = convert(hint, value, "suite/environment: field")
    assert (found, type(found)) == (converted, type(converted))


@pytest.mark.parametrize(
    ("hint", "value"), [(float, "3"), (float, True), (int, 3.5), (int, True), (tuple[int, ...], 3), (Literal["a"], "b")]
)
def test_wrong_types(hint: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="preset suite/environment: field = "):
        convert(hint, value, "suite/environment: field")


def test_the_record() -> None:
    preset = load_preset("fql", "ogbench-pixels/visual-scene-play")
    assert isinstance(preset, Preset)
    record = preset.describe()
    assert record["name"] == "ogbench-pixels/visual-scene-play-task1"
    assert record["unsupported"] == {}
    assert [record["values"][key] for key in ("encoder", "frame_stack", "p_aug")] == ["impala_small", 3, 0.5]
    assert record["sources"] == ["github.com/seohongpark/fql, README.md, offline runs on pixel-based OGBench"]
