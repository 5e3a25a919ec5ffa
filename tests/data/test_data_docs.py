"""The examples of docs/data.md run, those of sources that need nothing from elsewhere."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in PAGE.split("\n## ")}
BLOCKS = [
    block
    for section in ("Arrays and DataFrames", "npz", "hdf5", "sb3", "Downloads")
    for block in re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_example_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(block, {})


def test_every_block_was_found() -> None:
    assert len(BLOCKS) == 4
