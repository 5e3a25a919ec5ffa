"""Every block of Python and every command of the documentation runs, in tiny sizes (`tests/support/stand_ins.py`).

The blocks of a page run one after the other, as a reader would type them; names that none of them defines are those of
`stand_ins.NAMES`. A block that cannot run has a comment before it, `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from doc_pages import ROOT, Example, examples, pages, undefined
from stand_ins import NAMES

from flowpolicies.cli import main

OFTEN = ("README.md", "docs/index.md", "docs/tutorial.md", "docs/samplers.md")
"""Pages whose examples run in `make test`; those of the others run in `make more`."""
ELSEWHERE = {
    "docs/plugins.md": "tests/plugins/test_docs.py",
    "docs/guides/checkpoints.md": "tests/training/test_exact_resume.py",
    "docs/guides/importing.md": "tests/importing",
    "docs/guides/sb3.md": "tests/conformance",
    "docs/guides/pretrained.md": "tests/policies/test_pretrained_guide.py",
    "docs/guides/rl_zoo3.md": "tests/integrations/zoo",
}
"""Pages whose examples have a test of their own."""
LONG = {
    "bench": "measures for minutes",
    "data check d4rl": "simulates real data again",
    "data check ogbench": "simulates real data again",
    "data generate": "lets OGBench's oracle act for minutes",
    "demo": "takes nine minutes",
    "import flax": "needs a checkpoint of the authors' code",
    "push": "needs an account",
    "reproduce results": "reads the runs of hours",
    "reproduce table": "takes hours",
    "toy": "trains for minutes",
}
"""Commands that are only parsed (tests/cli/test_app.py), and why; with --dry-run they run."""


def runs(words: list[str]) -> bool:
    """Whether a command is one that tests run: it takes seconds and has no placeholder."""
    long = any(" ".join(words).startswith(command) for command in LONG) and "--dry-run" not in words
    return not long and not any("..." in word for word in words)


def _pages_with(language: str) -> list[Any]:
    found = []
    for page in pages():
        name = page.relative_to(ROOT).as_posix()
        marks = [] if name in OFTEN else [pytest.mark.more]
        record = name.startswith("docs/adr/")  # The code of a decision is that of its day.
        if (
            name not in ELSEWHERE
            and not record
            and any(example.language == language and example.reason is None for example in examples(page))
        ):
            found.append(pytest.param(page, id=name, marks=marks))
    return found


def run_blocks(blocks: list[Example], names: dict[str, Any]) -> None:
    """Runs the blocks of a page in one namespace; an error names the line of the page."""
    texts = [block.text for block in blocks]
    names |= {name: NAMES[name]() for name in undefined(texts) if name in NAMES}
    for block in blocks:
        padded = "\n" * (block.line - 1) + block.text
        exec(compile(padded, str(ROOT / block.page), "exec"), names)


@pytest.mark.parametrize("page", _pages_with("python"))
def test_blocks_run(page: Path, place: Path) -> None:
    blocks = [block for block in examples(page) if block.language == "python" and block.reason is None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_blocks(blocks, {"__name__": "__main__"})


@pytest.mark.parametrize("page", _pages_with("sh"))
def test_commands_run(page: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in examples(page):
        for words in block.commands() if block.language == "sh" and block.reason is None else ():
            if not runs(words):
                continue
            again = ["--overwrite"] if words[0] == "train" and "--resume" not in words else []  # Of another block.
            code = main([*words, *again])
            out = capsys.readouterr()
            checked = words[:2] == ["data", "check"]  # It ends with 1 if it finds something in the random data.
            assert code == 0 or (checked and code == 1), (
                f"{page.name}:{block.line}: flowpolicies {' '.join(words)}\n{out.out}{out.err}"
            )


def test_pages_with_tests_of_their_own_have_them() -> None:
    assert [test for test in ELSEWHERE.values() if not (ROOT / test).exists()] == []
    assert all((ROOT / page).is_file() for page in ELSEWHERE)


def test_reasons_are_given() -> None:
    left_out = [example for page in pages() for example in examples(page) if example.reason is not None]
    assert all(len(example.reason.split()) >= 3 for example in left_out if example.reason is not None)
