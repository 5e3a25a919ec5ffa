"""The navigation of the documentation, its notebook, and the links of the pages that are outside the site."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from doc_pages import ROOT, examples, undefined
from tutorial_notebook import notebook

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.shell.catalog import FAMILIES


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nav() -> Any:
    """The navigation of mkdocs.yml, read as YAML by mkdocs itself where it is installed."""
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2])


def test_every_page_is_in_the_navigation_once(hooks: ModuleType) -> None:
    shown = hooks._lines(hooks.expand(nav(), ROOT / "docs"))
    assert len(set(shown)) == len(shown)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages - set(shown) == {"assets/vendor/README.md"}
    assert set(shown) - pages == set()


def test_navigation_expands_patterns_in_order_and_leaves_empty_groups_out(hooks: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "rooms").mkdir()
    for name in ("index", "b-one", "a", "b-two"):
        (tmp_path / "rooms" / f"{name}.md").touch()
    given = [
        {"Start": "start.md"},
        {"Rooms": ["rooms/index.md", {"B": ["rooms/b-*.md"]}, {"C": ["rooms/c-*.md"]}, {"Others": ["rooms/*.md"]}]},
    ]
    rooms = ["rooms/index.md", {"B": ["rooms/b-one.md", "rooms/b-two.md"]}, {"Others": ["rooms/a.md"]}]
    assert hooks.expand(given, tmp_path) == [{"Start": "start.md"}, {"Rooms": rooms}]


def test_every_algorithm_is_in_a_family(hooks: ModuleType) -> None:
    pages = [f"algorithms/{name}.md" for name in [*ALGORITHMS, "new"]]
    *groups, new = hooks.by_family(pages)
    assert new == "algorithms/new.md"
    assert [title for group in groups for title in group] == [title for title in FAMILIES.values() if title != "Others"]
    assert sorted(page for group in groups for page in group[next(iter(group))]) == sorted(pages[:-1])


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ('<link rel="stylesheet" href="https://fonts.example/css">', ["https://fonts.example/css"]),
        ('<img alt="" src="http://example/a.png">', ["http://example/a.png"]),
        ('<a href="https://arxiv.org/abs/2502.02538">paper</a><script src="../x.js"></script>', []),
    ],
)
def test_what_a_page_would_load_from_elsewhere_is_found(hooks: ModuleType, html: str, expected: list[str]) -> None:
    assert ["".join(found) for found in hooks.FROM_ELSEWHERE.findall(html)] == expected


def test_options_of_commands_are_kept_on_one_line(hooks: ModuleType) -> None:
    block = '<div class="language-sh highlight"><pre><code>train fql --steps <span>5</span></code></pre></div>'
    flag = '<span class="flag">{}</span>'.format
    assert hooks.on_page_content(block) == block.replace("--steps", flag("--steps"))
    assert hooks.on_page_content("<code>--n-envs</code>") == f"<code>{flag('--n-envs')}</code>"
    other = "<p>two --words</p><code>a--b</code>"
    assert hooks.on_page_content(other) == other


def test_the_notebook_is_the_tutorial() -> None:
    page = ROOT / "docs" / "tutorial.md"
    written = (ROOT / "docs" / "tutorial.ipynb").read_text()
    same = written == notebook(page.read_text())
    assert same, "docs/tutorial.ipynb is not docs/tutorial.md: run `make generate`"
    cells = json.loads(written)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code == [block.text.rstrip("\n") for block in examples(page) if block.language == "python"]
    assert not any("](" in "".join(cell["source"]).replace("](https:", "") for cell in cells)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_pages_outside_the_site_lead_to_files(name: str) -> None:
    text = (ROOT / name).read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_names_that_a_page_does_not_define() -> None:
    blocks = [
        "import numpy as np\nx = np.zeros(3)\n",
        "def f(a):\n    return a + x + policy\n",
        "print(f(model.cfg))\n",
    ]
    assert undefined(blocks) == ["model", "policy"]
