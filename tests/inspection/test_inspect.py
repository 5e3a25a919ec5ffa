"""Inspection of all kinds of datasets, in memory and in files, and their histograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from pendulum_data import EPISODES, SPACES, STEPS, Columns, as_dataset, copy_episode, join

from flowpolicies.data import TransitionDataset, open_memmap, write_memmap
from flowpolicies.inspection import inspect_dataset
from flowpolicies.inspection.inspect import _count


def test_images_and_dict_observations(columns: Columns) -> None:
    rng, length = np.random.default_rng(0), len(columns["actions"])
    images = rng.integers(0, 255, (length + 1, 3, 4, 4), np.uint8)
    images[:, 0] = 7  # Constant pixels are not reported.
    vectors = {key: columns[key] for key in ("observations", "next_observations")}
    arrays = {key: column for key, column in columns.items() if key not in vectors}
    for key, pixels in (("observations", images[:-1]), ("next_observations", images[1:].copy())):
        arrays |= {f"{key}/camera": pixels, f"{key}/state": vectors[key]}
    space = Dict({"camera": Box(0, 255, (3, 4, 4), np.uint8), "state": SPACES["observation_space"]})
    dataset = as_dataset(arrays, observation_space=space)
    assert {f.severity for f in inspect_dataset(dataset).findings} == {"info"}
    arrays["next_observations/camera"][437, 1, 0, 0] += 1
    (finding,) = (f for f in inspect_dataset(dataset).findings if f.severity != "info")
    assert (finding.check, finding.row) == ("trajectories", 437)


def test_a_memory_mapped_dataset_gives_the_same_findings(columns: Columns, tmp_path: Path) -> None:
    copy_episode(columns)
    dataset = TransitionDataset(**columns, **SPACES, provenance={"name": "pendulum"})
    titles: list[str] = []

    def track(blocks: Any, title: str) -> Any:
        titles.append(title)
        return blocks

    mapped = inspect_dataset(open_memmap(write_memmap(tmp_path / "data", dataset)), track=track)
    assert mapped.findings == inspect_dataset(dataset).findings
    assert {"observations", "observations: order", "duplicates"} <= set(titles)


def test_blocks_do_not_hide_what_lies_across_them(columns: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    join(columns)
    expected = inspect_dataset(as_dataset(columns)).findings
    monkeypatch.setattr("flowpolicies.data.dataset.rows.BLOCK_BYTES", 240)  # Blocks of 10 rows: row 400 begins one.
    assert inspect_dataset(as_dataset(columns)).findings == expected


def test_a_sample_of_no_rows_is_refused(columns: Columns) -> None:
    with pytest.raises(ValueError, match="sample is 0; the checks need at least one row"):
        inspect_dataset(as_dataset(columns), sample=0)


def test_histograms_count_everything(columns: Columns) -> None:
    drawn = {h.title: h for h in inspect_dataset(as_dataset(columns)).histograms}
    assert drawn["Return of a trajectory"].counts.sum() == EPISODES
    assert drawn["Reward"].counts.sum() == drawn["Action 0"].counts.sum() == EPISODES * STEPS
    np.testing.assert_array_equal(drawn["Length of a trajectory (steps)"].edges, [STEPS - 0.5, STEPS + 0.5])


@pytest.mark.parametrize(
    ("values", "most"), [([-200.0, -200 - 3e-14, -200 + 3e-14], 2), ([1e20] * 3, 3), ([3, 4, 4], 2), ([], 0)]
)
def test_histograms_of_equal_and_of_large_values(values: list[float], most: int) -> None:
    counts, edges = _count(np.array(values))
    assert counts.sum() == len(values)
    assert counts.max() == most
    assert np.all(np.diff(edges) > 0)
