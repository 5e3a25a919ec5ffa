"""The examples about Minari in docs/data.md run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
SECTION = PAGE[PAGE.index("## Minari") : PAGE.index("## Collect and convert")]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_example_runs(block: str) -> None:
    exec(block, {})


def test_there_is_an_example() -> None:
    assert len(BLOCKS) == 1
