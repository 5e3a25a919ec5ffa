"""Every cell of the published tables is in the presets, and every value of the presets is in a cell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from preset_cells import COMMON, DEFAULT_TASKS, Cells, all_cells
from preset_tables import SOURCES, TABLES, d4rl_names, numbers, table, unfold

from flowpolicies.algorithms import get_algorithm
from flowpolicies.reproduction.preset_files import Preset
from flowpolicies.reproduction.presets import iterate_presets as iterate_all_presets
from flowpolicies.reproduction.presets import load_preset, stand_in
from flowpolicies.training import SB3Hyperparameters, TrainSettings


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("antmaze-{large-play, large-diverse}-v2", ["antmaze-large-play-v2", "antmaze-large-diverse-v2"]),
        ("pen-cloned-v1, door-cloned-v1", ["pen-cloned-v1", "door-cloned-v1"]),
    ],
)
def test_unfolding(cell: str, names: list[str]) -> None:
    assert unfold(cell) == names


def test_names_of_d4rl_rows() -> None:
    assert d4rl_names("halfcheetah-m") == ["halfcheetah-medium-v2"]
    assert d4rl_names("hopper m/mr/me") == d4rl_names("hopper-{m,mr,me}-v2") == d4rl_names("hopper-m / mr / me")
    assert d4rl_names("walker2d-mr") == ["walker2d-medium-replay-v2"]
    assert d4rl_names("antmaze-u, u-div, m-play, m-div")[1] == "antmaze-umaze-diverse-v0"
    assert d4rl_names("antmaze-umaze / -diverse-v0") == ["antmaze-umaze-v0", "antmaze-umaze-diverse-v0"]
    assert d4rl_names("antmaze-medium-{play,diverse}-v0")[0] == "antmaze-medium-play-v0"
    assert d4rl_names("pen-human / cloned-v1") == ["pen-human-v1", "pen-cloned-v1"]
    assert d4rl_names("kitchen-complete / partial / mixed")[2] == "kitchen-mixed-v0"


def iterate_presets() -> Iterator[Preset]:
    """Presets that others have published; those of the Pendulum suites are this project's own."""
    return (preset for preset in iterate_all_presets() if not preset.suite.startswith("pendulum"))


@pytest.fixture(scope="module")
def expected() -> Cells:
    return all_cells()


def of_preset(cells: Cells, preset: Preset) -> dict[str, Any]:
    """Values of the tables for a preset: for its environment, its algorithm there, and its task."""
    names = (f"{preset.suite}/{preset.environment}", preset.name)
    layers = [COMMON.get((preset.suite, "*"), {}), *(cells.get(("*", name), {}) for name in names)]
    layers += [COMMON.get((preset.suite, preset.algorithm), {})]
    layers += [cells.get((preset.algorithm, name), {}) for name in names]
    return {key: value for layer in layers for key, value in layer.items()}


def test_every_cell_is_in_a_preset(expected: Cells) -> None:
    presets = {(preset.algorithm, name): preset for preset in iterate_presets() for name in names_of(preset)}
    missing = [key for key in expected if key[0] != "*" and key not in presets]
    assert not missing
    for (algorithm, name), values in expected.items():
        for preset in [preset for key, preset in presets.items() if key[1] == name and algorithm in (key[0], "*")]:
            for field, value in values.items():
                if algorithm == "*" and (field not in preset.values or preset.values[field] != value):
                    own = of_preset(expected, preset)  # An algorithm may lack the field, or have a value of its own.
                    assert field not in preset.values or own[field] != value
                elif field == "notes":
                    assert value in preset.notes
                else:
                    assert preset.values[field] == value, f"{preset.name}: {algorithm} {field}"


def names_of(preset: Preset) -> tuple[str, str]:
    return f"{preset.suite}/{preset.environment}", preset.name


def test_every_value_is_in_a_cell(expected: Cells) -> None:
    for preset in iterate_presets():
        assert any((preset.algorithm, name) in expected for name in names_of(preset)), preset.name
        parts = (get_algorithm(preset.algorithm).Config, SB3Hyperparameters, TrainSettings)
        fields = {name for part in parts for name in part.__dataclass_fields__}
        known = {name: value for name, value in of_preset(expected, preset).items() if name in fields}
        values = {name: value for name, value in preset.values.items() if name != "dataset"}
        assert values == known, f"{preset.algorithm} {preset.name}"


def test_every_table_has_a_source() -> None:
    assert {file.stem for file in TABLES.iterdir()} == set(SOURCES)


def test_two_readings_agree_on_dac_and_qsm() -> None:
    """The presets are from `qam_a`; here they are compared with a second, independent reading of the same script."""
    dac, qsm = (TABLES / "dac_qsm_ogbench.md").read_text().splitlines()
    full = {"antmaze": "navigate", "humanoid": "navigate", "cube": "play", "scene": "play", "puzzle": "play"}

    def environment(name: str) -> str:
        scene = name.replace("humanoid", "humanoidmaze")
        return f"{scene}-{full[name.split('-')[0]]}"

    cells = re.findall(r"([a-z0-9-]+) ([\d.]+)(?=[,.])", dac.rpartition("alpha: ")[2])
    assert len(cells) == 10
    for name, alpha in cells:
        values = load_preset("dac", f"ogbench-advanced/{environment(name)}").values
        assert values["alpha"] == float(alpha.rstrip("."))
    pairs = re.findall(r"([a-z0-9-]+) \(([\d.]+),([\d.]+)\)", qsm)
    assert len(pairs) == 10
    for name, inv_temp, alpha in pairs:
        values = load_preset("qsm", f"ogbench-advanced/{environment(name)}").values
        assert (values["inv_temp"], values["alpha"]) == (float(inv_temp), float(alpha))


def test_common_defaults() -> None:
    """Fields that presets do not set have the algorithm's defaults, which must be those of the authors."""
    rows = {cells[0]: cells[1:] for cells in table("fql_defaults")[1]}
    sb3_hyperparameters = SB3Hyperparameters()
    assert rows["lr / Adam"][:2] == ["3e-4"] * 2
    assert rows["batch"][0] == str(sb3_hyperparameters.batch_size)
    assert rows["τ"][0] == str(sb3_hyperparameters.tau)
    assert sb3_hyperparameters.learning_rate == 3e-4
    assert rows["γ (default)"][0] == str(sb3_hyperparameters.gamma)
    standard, advanced = COMMON["ogbench-online", "*"], COMMON["ogbench-advanced", "*"]
    assert rows["offline/online steps"][:2] == ["1M / 0", "1M / 500k"]
    assert (advanced["steps"], advanced["online_steps"]) == (1_000_000, 500_000)
    assert rows["start_training (online)"][:2] == [str(suite["learning_starts"]) for suite in (standard, advanced)]
    assert rows["eval every / episodes"][:2] == [
        f"{suite['eval_every'] // 1000}k / {suite['eval_episodes']}" for suite in (standard, advanced)
    ]
    assert [int(cell.partition(",")[0]) for cell in rows["K, aggregation"][:2]] == [
        suite["ensemble"] for suite in (standard, advanced)
    ]
    for preset in iterate_presets():
        if not preset.suite.startswith("ogbench"):
            continue
        config = get_algorithm(preset.algorithm).Config()
        assert getattr(config, "flow_steps", 10) == int(rows["flow steps"][0])
        if preset.algorithm not in ("cac",):  # It has networks of its own.
            assert config.actor_hidden_dims == config.value_hidden_dims == (512,) * 4
            assert config.value_layer_norm
            assert not config.actor_layer_norm
        clips = preset.algorithm in ("qam", "qam_f", "qam_e", "bam", "dac", "qsm", "cac")
        assert (config.clip_grad_norm is not None) == clips, preset.algorithm


def test_runs_that_are_plain_qam() -> None:
    for domain, *_, qam_f, qam_e, _ in table("qam_b")[1]:
        name = f"ogbench-advanced/{domain.removesuffix(' (sparse)')}-task1"
        assert stand_in("qam_f", name) == ("qam" if numbers(qam_f)[1] == 0 else "qam_f")
        assert stand_in("qam_e", name) == ("qam" if numbers(qam_e)[1] == 0 else "qam_e")


def test_tasks_and_data(expected: Cells) -> None:
    big = {row[0].removesuffix("-sparse") for row in table("qam_environments")[1] if "100m" in row[6]}
    assert big == {"puzzle-4x4-play", "cube-quadruple-play"}
    per_task = {key for key in expected if "-task" in key[1]}
    tasks: dict[tuple[str, str], list[int | None]] = {}
    for preset in iterate_presets():
        tasks.setdefault((preset.algorithm, names_of(preset)[0]), []).append(preset.task)
        if preset.suite.startswith("d4rl"):
            assert preset.dataset == f"d4rl:{preset.environment}"
        else:
            size = "-100m" if preset.suite == "ogbench-advanced" and preset.environment in big else ""
            assert preset.dataset == f"ogbench:{preset.environment}{size}-singletask-task{preset.task}-v0"
            assert preset.default_task == DEFAULT_TASKS[preset.environment.split("-")[0]]
    for (algorithm, name), found in tasks.items():
        suite = name.partition("/")[0]
        default = DEFAULT_TASKS.get(name.partition("/")[2].split("-")[0])
        if suite in ("ogbench-pixels", "ogbench-online"):
            assert found == [default]
        elif suite.startswith("d4rl"):
            assert found == [None]
        elif any(key[0] == algorithm and key[1].startswith(f"{name}-task") for key in per_task) and (
            (algorithm, name) not in expected
        ):
            assert found == [default]
        else:
            assert found == [1, 2, 3, 4, 5]
