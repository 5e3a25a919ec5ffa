"""`flowpolicies toy`: trainings, their folder, figures and errors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flowpolicies.cli import main
from flowpolicies.cli.app import _parse
from flowpolicies.policies import FlowPolicy
from flowpolicies.shell.registry import ALGORITHMS
from flowpolicies.toy.costs import measure_costs
from flowpolicies.toy.datasets import draw_points
from flowpolicies.toy.figures.curves import policy_gradient
from flowpolicies.toy.methods import COEFFICIENTS, LARGE, make_model
from flowpolicies.toy.recording import CONSISTENCY_TIMES, TIMES, noise_of
from flowpolicies.toy.report import write_results
from flowpolicies.toy.results import ToyResults, table_rows
from flowpolicies.toy.running import run_toy
from flowpolicies.toy.settings import PUBLISHED, ToyCell, ToySettings, chains, words_of, work_of
from flowpolicies.toy.training import folder_of, read_arrays, read_cell, train_cell

Small = Callable[..., ToySettings]


def arrays_of(cell: ToyCell, settings: ToySettings) -> dict[str, np.ndarray]:
    return read_arrays(folder_of(cell, settings))


def test_coefficients_continue_from_the_same_clone(trained: ToySettings) -> None:
    start = arrays_of(ToyCell("swissroll", "qflow", "cloning", 0), trained)
    for value in trained.coefficients:
        found = arrays_of(ToyCell("swissroll", "qflow", value, 0), trained)
        assert (found["frames"][0] == start["frames"][-1]).all()
        assert (found["frames"][-1] != start["frames"][-1]).any()


def test_the_coefficient_is_that_of_the_box(trained: ToySettings) -> None:
    # Networks see points divided by 4: squared distances against values have weights 16 times as large.
    read = {kind: read_cell(folder_of(ToyCell("swissroll", "fql", kind, 0), trained)) for kind in ("cloning", 0.5)}
    assert read[0.5]["field"] == "alpha"
    assert read[0.5]["value"] == 8
    assert read["cloning"]["value"] == LARGE


def test_what_figures_need_is_in_small_files(trained: ToySettings) -> None:
    cell = ToyCell("swissroll", "qflow", 5.0, 0)
    arrays, about = arrays_of(cell, trained), read_cell(folder_of(cell, trained))
    assert arrays["samples"].shape == (2000, 2)
    assert arrays["paths"].shape == (3, 64, 2)  # Two steps.
    assert arrays["paths"][0] == pytest.approx(4 * noise_of(64))
    assert arrays["velocity"].shape == (len(TIMES), 17, 17, 2)
    assert arrays["value"].shape == (len(TIMES), 41, 41)
    assert arrays["consistency"].shape == (len(CONSISTENCY_TIMES), 3)
    assert arrays["consistency"][-1].max() == 0  # At t = 1 nothing flows.
    assert all((folder_of(cell, trained) / name).stat().st_size < 300_000 for name in ("arrays.npz", "cell.json"))
    assert [line["update"] for line in about["log"]] == [0, 1, 2, 3]
    assert all(policy_gradient(line) > 0 for line in about["log"])
    assert about["measures"]["off_support"] > 0.2  # After so few updates.
    policy = FlowPolicy.load(folder_of(cell, trained) / "policy.safetensors")
    policy.seed(1)
    assert policy.predict(np.zeros((2000, 1), np.float32))[0] == pytest.approx(arrays["samples"], abs=1e-5)


def test_the_gradient_of_the_landscape_is_its_slope(trained: ToySettings) -> None:
    arrays = arrays_of(ToyCell("swissroll", "qflow", 5.0, 0), trained)
    side = 8 / 40
    for value, slope in zip(arrays["value"], arrays["value_gradient"], strict=True):
        along_y, along_x = np.gradient(value, side)
        gap = np.abs(np.stack([along_x, along_y], -1) - slope)[1:-1, 1:-1]
        assert np.median(gap) < 0.05 * np.abs(slope).max()  # ReLU networks have kinks.


def test_a_second_command_trains_only_what_is_missing(trained: ToySettings, tmp_path: Path) -> None:
    shutil.copytree(trained.run_dir, tmp_path / "toy")
    settings = replace(trained, run_dir=tmp_path / "toy")
    gone, kept = (folder_of(ToyCell("swissroll", "fql", value, 0), settings) for value in (0.5, 5.0))
    shutil.rmtree(gone)
    before = kept.stat().st_mtime_ns
    run_toy(settings)
    assert kept.stat().st_mtime_ns == before
    again, first = (read_arrays(folder / gone.name)["samples"] for folder in (gone.parent, trained.run_dir / "cells"))
    assert (again == first).all()


def test_a_folder_of_another_size_is_refused(trained: ToySettings) -> None:
    with pytest.raises(ValueError, match=r"another size.*--run-dir"):
        run_toy(replace(trained, width=9))


def test_figures_and_table_are_made_of_what_there_is(trained: ToySettings, tmp_path: Path) -> None:
    shutil.copytree(trained.run_dir, tmp_path / "toy")
    shutil.rmtree(tmp_path / "toy/cells/swissroll-fql-5-seed0")
    write_results(replace(trained, run_dir=tmp_path / "toy"))
    pictures = {path.name for path in (tmp_path / "toy").iterdir() if path.suffix in (".png", ".gif")}
    of_data = {f"{name}-swissroll.png" for name in ("samples", "paths", "velocity", "value")}
    methods = {f"method-swissroll-{name}.png" for name in ("qflow", "fql")}
    assert pictures == {*of_data, *methods, "data.png", "consistency.png", "gradients.png", "evolution-swissroll.gif"}
    for name in pictures:
        with Image.open(tmp_path / "toy" / name) as image:
            assert len(image.convert("RGB").getcolors(maxcolors=1 << 20) or []) > 20
    with Image.open(tmp_path / "toy/evolution-swissroll.gif") as image:
        assert image.n_frames > 4
    rows = json.loads((tmp_path / "toy/results.json").read_text())["rows"]
    assert [(row["method"], row["coefficient"]) for row in rows] == [
        *(("qflow", kind) for kind in ("cloning", 5.0, 0.5)),
        *(("fql", kind) for kind in ("cloning", 0.5)),
    ]
    assert len((tmp_path / "toy/table.md").read_text().splitlines()) == 2 + len(rows)


def test_rows_are_means_over_seeds(trained: ToySettings, tmp_path: Path) -> None:
    shutil.copytree(trained.run_dir / "cells/swissroll-fql-5-seed0", tmp_path / "cells/a")
    shutil.copytree(trained.run_dir / "cells/swissroll-fql-5-seed0", tmp_path / "cells/b")
    about = read_cell(tmp_path / "cells/b")
    about["seed"], about["measures"]["reward"] = 1, about["measures"]["reward"] + 1
    (tmp_path / "cells/b/cell.json").write_text(json.dumps(about))
    (row,) = table_rows(ToyResults(tmp_path))
    assert row["seeds"] == 2
    assert row["reward"] == pytest.approx(about["measures"]["reward"] - 0.5)


def test_costs_are_of_methods_with_flow_steps(tmp_path: Path, small: Small) -> None:
    settings = small(tmp_path, methods=("qflow", "iql"))
    found = measure_costs(settings, steps=(1, 2))
    assert list(found) == ["qflow"]
    assert list(found["qflow"]) == ["1", "2"]
    assert all(value > 0 for value in found["qflow"].values())


def test_every_coefficient_is_a_field_of_its_algorithm() -> None:
    for method, weight in COEFFICIENTS.items():
        assert weight.field in {field.name for field in fields(ALGORITHMS[method].Config)}, method


@pytest.mark.more
@pytest.mark.parametrize("method", sorted(ALGORITHMS))
def test_every_algorithm_can_be_drawn(method: str, tmp_path: Path, small: Small) -> None:
    coefficients = (0.7,) if method in COEFFICIENTS else ()
    settings = small(tmp_path, methods=(method,), coefficients=coefficients)
    for cell in chains(settings)[0].cells:
        train_cell(cell, settings)
        assert np.isfinite(arrays_of(cell, settings)["samples"]).all()


def test_the_published_size() -> None:
    settings = ToySettings(dataset="all", full=True)
    assert settings.size("moons") == PUBLISHED
    assert settings.size("two_spirals").pretraining == 15_000
    cell = ToyCell("moons", "qflow", 0.5, 0)
    small = replace(settings, width=16, batch_size=8)
    model = make_model(cell, small)
    weights = model.policy.networks["actor_flow"].net.layers[1].weight.detach()
    assert weights.shape == (16, 16)
    assert float(weights.std()) == pytest.approx(0.02, abs=0.004)
    assert work_of(cell, settings) == 300
    assert work_of(cell.start or cell, settings) == 6000
    assert len(draw_points("moons").rewards) == 10_000


def test_workers_get_a_command_of_their_own(tmp_path: Path) -> None:
    settings = ToySettings(dataset="all", full=True, seeds=(0, 3), width=32, run_dir=tmp_path, workers=4)
    parsed: list[Any] = [_parse(list(words_of(chain, settings))).settings for chain in chains(settings)]
    assert len(parsed) == 4 * 2 * 3
    for chain, one in zip(chains(settings), parsed, strict=True):
        assert chains(one) == [chain]
        assert one.recorded() == settings.recorded()
        assert one.only_train


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--methods bc", "bc has no coefficient.*Leave it out of --methods, or pass --coefficients without a value"),
        ("--methods qflw", "unknown algorithm 'qflw'"),
        ("--coefficients 0", "--coefficients must be greater than 0, got 0"),
        ("--methods fql fql", "--methods needs at least one value, and each value once"),
        ("--only-draw", "holds no complete training"),
        ("--only-draw --only-train", "exclude each other"),
    ],
)
def test_errors_say_what_to_do(words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["toy", "--run-dir", str(tmp_path / "toy"), *words.split()]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
