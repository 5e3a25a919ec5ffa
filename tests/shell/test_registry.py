"""Algorithms by name, what the table says of them, and those of other packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from names import algorithm_of
from tiny import known, tiny

import flowpolicies
from flowpolicies.algorithms import ALGORITHMS, BC, FQL, OfflineAlgorithm, get_algorithm, make
from flowpolicies.cli.listing import markdown_page
from flowpolicies.data import TransitionDataset

ROOT = Path(__file__).parents[2]
RECORDINGS = {path.stem for path in (ROOT / "tests" / "golden").glob("*.npz")}


def test_claimed_recordings_are_there_and_replayed_through_the_algorithm(algorithm) -> None:
    assert set(algorithm.parity) <= RECORDINGS
    assert {algorithm_of(name) for name in algorithm.parity} <= {algorithm.name}


def test_every_recording_that_is_replayed_is_claimed_once() -> None:
    replayed = sorted(name for name in RECORDINGS if algorithm_of(name) is not None)
    ours = [cls for cls in ALGORITHMS.values() if cls.__module__.startswith("flowpolicies.")]  # Other tests add some.
    assert sorted(name for cls in ours for name in cls.parity) == replayed


def sizes(algorithm: type[OfflineAlgorithm]) -> dict[str, object]:
    """The smallest networks."""
    return known(algorithm, {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "flow_steps": 2, "num_samples": 2})


@pytest.fixture(scope="module")
def images() -> TransitionDataset:
    rng, n = np.random.default_rng(0), 16
    frames = rng.integers(0, 256, (n + 1, 3, 8, 8), np.uint8)
    ends = np.arange(n) % 8 == 7
    return TransitionDataset.from_arrays(
        frames[:-1],
        rng.uniform(-1, 1, (n, 2)),
        rng.normal(size=n),
        frames[1:],
        terminations=ends & False,
        truncations=ends,
    )


def test_takes_images(algorithm, images: TransitionDataset) -> None:
    model = tiny(algorithm, dataset=images, encoder="impala_debug", batch_size=4, **sizes(algorithm))
    encoders = [key for key in model.policy.state_dict() if key.startswith("networks.") and ".encoder." in key]
    before = {key: model.policy.state_dict()[key].clone() for key in encoders}
    model.learn_offline(1)
    assert any((model.policy.state_dict()[key] != before[key]).any() for key in encoders)
    actions, _ = model.predict(images.observations[:4])
    assert actions.shape == (4, 2)
    assert np.isfinite(actions).all()


def test_page_of_algorithms_is_that_of_the_registry() -> None:
    page = ROOT / "docs" / "algorithms" / "index.md"
    assert page.is_file(), f"{page} is missing: run `make docs-index`"
    same = page.read_text() == markdown_page()  # The text itself would be a wall in the failure message.
    assert same, f"{page} is not what the registry says: run `make docs-index`"


def test_is_exported_and_takes_policy_and_environment_by_position(algorithm, data) -> None:
    exported = getattr(flowpolicies, algorithm.__name__)
    assert exported is algorithm
    model = exported("FlowPolicy", "Pendulum-v1", dataset=data, device="cpu", **sizes(algorithm))
    assert len(data) == model.replay_buffer.size()
    assert type(model.policy) is flowpolicies.FlowPolicy


def test_make_is_the_class(algorithm, data) -> None:
    options = {"seed": 3, "device": "cpu", **sizes(algorithm)}
    made, built = make(algorithm.name.upper(), dataset=data, **options), algorithm(dataset=data, **options)
    assert type(made) is algorithm
    assert made.cfg == built.cfg
    observations = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(made.predict(observations)[0], built.predict(observations)[0])


def test_make_takes_an_environment_by_position() -> None:
    model = flowpolicies.make("bc", "Pendulum-v1", actor_hidden_dims=(8,), device="cpu")
    assert model.action_space.shape == (1,)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("qflwo", {}, ValueError, r"unknown algorithm 'qflwo' \(known: bam, .*\)\. Did you mean 'qflow'\?"),
        ("fql", {"use_sde": True}, TypeError, r"FQL does not take 'use_sde'. .*action_noise="),
        ("fql", {"ent_coef": "auto"}, TypeError, r"FQL does not take 'ent_coef'. .*target_entropy_multiplier="),
        ("fql", {"net_arch": [8]}, TypeError, r"FQL does not take 'net_arch'. .*policy_kwargs="),
        ("fql", {"target_update_interval": 2}, TypeError, r"Target networks move by tau at every update"),
        ("fql", {"alfa": 3.0}, TypeError, r"FQL has no hyperparameter 'alfa'; it has .*Did you mean 'alpha'\?"),
        ("fql", {"batchsize": 3}, TypeError, r"all algorithms .*batch_size, .*Did you mean 'batch_size'\?"),
        ("fql", {"lr": 1e-3}, TypeError, r"Did you mean 'learning_rate'\?"),
        ("fql", {"dataset": {}}, TypeError, "dataset must be a TransitionDataset or an address .*, got dict"),
        ("fql", {}, ValueError, "FQL needs an environment or a dataset to know its spaces"),
        (
            "fql",
            {"env": "CartPole-v1"},
            ValueError,
            r"FQL acts in continuous spaces .*, got Discrete\(2\)\. For discrete",
        ),
        ("fql", {"env": gym.make("CartPole-v1")}, ValueError, "FQL acts in continuous spaces"),
    ],
)
def test_make_explains_what_is_wrong(name: str, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(name, **options)


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for packages, on the path; what they register and import is undone."""
    monkeypatch.syspath_prepend(tmp_path)
    algorithms, modules = dict(ALGORITHMS), set(sys.modules)
    yield tmp_path
    ALGORITHMS.clear()
    ALGORITHMS.update(algorithms)
    for name in {name for name in set(sys.modules) - modules if not name.startswith("flowpolicies.")}:
        del sys.modules[name]


def package(folder: Path, name: str, **points: str) -> None:
    """Metadata of an installed package with these entry points."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{key} = {value}" for key, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[flowpolicies.algorithms]", *lines]))


def toy(folder: Path, module: str = "toys") -> None:
    plugin = ROOT / "tests" / "plugins" / "toy"
    (folder / f"{module}.py").write_text((plugin / "flowpolicies_toy.py").read_text())
    (folder / "flowpolicies_toy_parts.py").write_text((plugin / "flowpolicies_toy_parts.py").read_text())


def test_a_name_of_another_package_is_found_and_its_package_imported_only_then(others: Path, data) -> None:
    package(others, "toys", toy="toys:Toy")
    toy(others)
    with pytest.raises(ValueError, match=r"known: .*, toy\)\. Did you mean 'toy'\?"):
        get_algorithm("tooy")
    assert "toys" not in sys.modules
    assert get_algorithm("Toy") is sys.modules["toys"].Toy is ALGORITHMS["toy"]
    assert tiny(ALGORITHMS["toy"], dataset=data).learn_offline(2).offline_steps == 2
    with pytest.raises(ValueError, match="Did you mean 'toy'") as found:
        get_algorithm("tooy")
    assert str(found.value).count("toy") == 2, "it is known by its entry point and by its class, and named once"


def test_an_import_line_registers(others: Path) -> None:
    toy(others)
    assert "toy" not in ALGORITHMS
    __import__("toys")
    assert make("toy", "Pendulum-v1", actor_hidden_dims=(8,)).cfg.temperature == 1.0


def test_a_package_that_cannot_be_imported(others: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package(others, "half-baked", half="no_such_module:Half", baked="baked:Baked")
    (others / "baked.py").write_text("1 / 0")
    with pytest.raises(ImportError, match=r"'half' cannot be imported from the package half-baked .*no_such_module"):
        get_algorithm("half")
    with pytest.raises(ImportError, match=r"'baked' cannot be imported from the package half-baked \(division by zero"):
        get_algorithm("baked")
    from flowpolicies.cli import main

    assert main(["list", "algorithms"]) == 0
    out = capsys.readouterr().out
    assert "  algorithm 'baked' cannot be imported from the package half-baked" in out
    assert "  fql " in out
    assert main(["train", "baked", "--dataset", "npz:a"]) == 2
    assert "division by zero" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["toys:ToyConfig", "toys:actor_loss", "flowpolicies:FQL", "toys"])
def test_an_entry_point_that_is_not_what_it_says(others: Path, value: str) -> None:
    package(others, "toys", toy=value)
    toy(others)
    with pytest.raises(
        ValueError, match="entry point 'toy' of the package toys must lead to an algorithm of that name"
    ):
        get_algorithm("toy")


def test_two_packages_with_the_same_name(others: Path) -> None:
    package(others, "toys", toy="toys:Toy")
    package(others, "other-toys", toy="other:Toy")
    with pytest.raises(ValueError, match="'toy' is provided more than once, by other-toys, toys"):
        get_algorithm("toy")


def test_names_of_this_package_cannot_be_taken_over(others: Path, data) -> None:
    package(others, "toys", bc="toys:Toy", fql="pirate:FQL")
    (others / "pirate.py").write_text(
        "from flowpolicies.algorithms import FQL as Ours\n"
        "from flowpolicies.algorithms import OfflineAlgorithm\n"
        "class FQL(OfflineAlgorithm):\n"
        "    Config, losses = Ours.Config, Ours.losses\n"
    )
    assert get_algorithm("bc") is BC
    with pytest.raises(TypeError, match=r"FQL of pirate would be the algorithm 'fql', .* name of .*\.fql\.FQL"):
        __import__("pirate")
    assert get_algorithm("fql") is FQL


def test_a_class_may_be_declared_again_where_it_was_declared() -> None:
    before = dict(ALGORITHMS)
    parts = {key: vars(BC)[key] for key in ("Config", "losses")} | {"name": "again"}
    try:
        for _ in range(2):
            assert type("Again", (OfflineAlgorithm,), parts) is ALGORITHMS["again"]
    finally:
        ALGORITHMS.pop("again")
    assert before == ALGORITHMS
