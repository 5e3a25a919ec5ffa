"""What `pip install` brings."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INTEGRATIONS = ("flowpolicies_d4rl", "flowpolicies_minari", "flowpolicies_ogbench")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_top_level_names(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert tops == {"flowpolicies", *INTEGRATIONS}


def test_typed_and_licensed(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {f"{top}/py.typed" for top in ("flowpolicies", *INTEGRATIONS)} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_presets_are_shipped(wheel: zipfile.ZipFile) -> None:
    folder = ROOT / "flowpolicies" / "presets"
    files = {str(path.relative_to(ROOT)) for path in folder.rglob("*") if path.is_file()}
    assert len(files) > 80
    assert files == {name for name in wheel.namelist() if name.startswith("flowpolicies/presets/")}


def test_pretrained_policies_are_shipped(wheel: zipfile.ZipFile) -> None:
    folder = ROOT / "flowpolicies" / "pretrained"
    files = {str(path.relative_to(ROOT)) for path in folder.rglob("*") if path.is_file()}
    assert len(files) >= 12
    assert files == {name for name in wheel.namelist() if name.startswith("flowpolicies/pretrained/")}


def test_what_is_read_when_names_are_imported_is_shipped(wheel: zipfile.ZipFile) -> None:
    stubs = {str(path.relative_to(ROOT)) for path in (ROOT / "flowpolicies").rglob("*.pyi")}
    assert len(stubs) >= 8
    assert stubs | {"flowpolicies/shell/catalog.json"} <= set(wheel.namelist())


def test_templates_of_pages_are_shipped(wheel: zipfile.ZipFile) -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "flowpolicies" / "pages" / "templates").iterdir()}
    assert len(files) == 4
    assert files <= set(wheel.namelist())


def test_entry_points(wheel: zipfile.ZipFile) -> None:
    text = wheel.read(next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))).decode()
    assert "flowpolicies = flowpolicies.cli:main" in text
    assert text.count("ogbench = flowpolicies_ogbench:") == 3
    assert text.count("minari = flowpolicies_minari:") == 3
    assert text.count("d4rl = flowpolicies_d4rl.") == 4


def test_no_package_markers_where_names_would_leak() -> None:
    assert not list((ROOT / "integrations").glob("__init__.py"))
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_importing_the_package_is_light_and_exports_its_names() -> None:
    code = (
        "import sys, flowpolicies\n"
        "assert not {'torch', 'ogbench', 'minari', 'matplotlib'} & set(sys.modules), 'heavy import'\n"
        "from flowpolicies import FQL, QFlow, FlowPolicy, TransitionDataset, evaluate, load_dataset, make_env\n"
        "print(flowpolicies.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().count(".") == 2
