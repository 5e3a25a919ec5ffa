from pathlib import Path

import gymnasium
import numpy as np
import pytest

from flowpolicies.data import TransitionDataset, generate_dataset, list_sources, load_dataset, make_env, write_npz
from flowpolicies.data.sources import environment_of, split_options

PLUGIN = """
import gymnasium, numpy as np
from pathlib import Path
from flowpolicies.data import TransitionDataset

def load(name, *, rows=4):
    zeros = np.zeros((rows, 1))
    return TransitionDataset.from_arrays(zeros, zeros, zeros[:, 0], zeros, terminations=zeros[:, 0], name=name)

def make_env(name, **options):
    return gymnasium.make("Pendulum-v1", **options)

def generate(name, *, folder):
    return str(Path(folder) / name)

def load_wrongly(name):
    return [name]
"""

ENTRY_POINTS = """
[flowpolicies.datasets]
toy = toy_plugin:load
npz = toy_plugin:load
broken = toy_plugin_that_is_not_there:load
wrong = toy_plugin:load_wrongly

[flowpolicies.environments]
toy = toy_plugin:make_env

[flowpolicies.generators]
toy = toy_plugin:generate
"""


@pytest.fixture(autouse=True)
def _toy_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution called toy-dist, installed."""
    (tmp_path / "toy_plugin.py").write_text(PLUGIN)
    add_distribution(tmp_path, "toy-dist", ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)


def add_distribution(folder: Path, name: str, entry_points: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def save_dataset(path: Path) -> TransitionDataset:
    ones = np.ones((3, 2))
    dataset = TransitionDataset.from_arrays(ones, ones, ones[:, 0], ones, terminations=[0, 0, 1])
    dataset.save(path)
    return dataset


def test_npz_is_built_in(tmp_path: Path) -> None:
    saved = save_dataset(tmp_path / "data.npz")
    assert load_dataset(f"npz:{tmp_path}/data.npz").fingerprint == saved.fingerprint


def test_plugins_are_found_and_given_the_options(tmp_path: Path) -> None:
    assert len(load_dataset("toy:some-name")) == 4
    dataset = load_dataset("toy:some:name", rows=2)
    assert len(dataset) == 2
    assert dataset.name == "some:name"
    assert make_env("toy:x", max_episode_steps=7).spec.max_episode_steps == 7
    assert generate_dataset("toy:x", folder=tmp_path) == tmp_path / "x"


def test_addresses_without_a_colon_are_gymnasium_ids() -> None:
    env = make_env("Pendulum-v1", render_mode=None)
    assert isinstance(env, gymnasium.Env)
    assert env.spec is not None
    assert env.spec.id == "Pendulum-v1"


def test_sources_are_listed_with_their_distribution_and_without_import() -> None:
    sources = list_sources()
    assert sources["npz"] == "flowpolicies"  # Not toy-dist, which may not take the name over.
    assert sources["toy"] == "toy-dist"
    assert sources["broken"] == "toy-dist"
    assert list(sources) == sorted(sources)
    assert list_sources("generators")["toy"] == "toy-dist"


def test_unknown_sources_get_a_suggestion() -> None:
    known = r"broken, .*hdf5, memmap, .*npz, .*sb3, toy, wrong"
    message = rf"unknown dataset source 'toyy' \(known: {known}\)\. Did you mean 'toy'\?"
    with pytest.raises(ValueError, match=message):
        load_dataset("toyy:name")
    with pytest.raises(ValueError, match=r"unknown environment source 'xyz' \(known: .*toy\)\.$"):
        make_env("xyz:name")
    with pytest.raises(ValueError, match="unknown generator source 'npz'"):
        generate_dataset("npz:name")


@pytest.mark.parametrize("address", ["cube-single-play", ":name", "npz:", ""])
def test_other_forms_are_explained(address: str) -> None:
    example = "ogbench:cube-single-play-singletask-v0"
    message = rf"'{address}' does not have the form 'source:name'\. Write '{example}' or 'npz:path"
    with pytest.raises(ValueError, match=message):
        load_dataset(address)


def test_broken_plugins_say_what_to_install_and_disturb_nobody(tmp_path: Path) -> None:
    save_dataset(tmp_path / "data.npz")
    load_dataset(f"npz:{tmp_path}/data.npz")
    message = (
        r"dataset source 'broken' cannot be imported from the package toy-dist "
        r"\(No module named 'toy_plugin_that_is_not_there'\)\. "
        r'Install what it needs: pip install "toy-dist"'
    )
    with pytest.raises(ImportError, match=message):
        load_dataset("broken:name")


def test_own_sources_name_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    add_distribution(tmp_path / "other", "flowpolicies", "[flowpolicies.datasets]\nminari = toy_plugin_gone:load\n")
    monkeypatch.syspath_prepend(tmp_path / "other")
    with pytest.raises(ImportError, match=r'pip install "flowpolicies\[minari\]"'):
        load_dataset("minari:name")


def test_sources_must_give_datasets() -> None:
    with pytest.raises(TypeError, match="dataset source 'wrong' gave a list; it must give a TransitionDataset"):
        load_dataset("wrong:name")


def test_a_name_with_two_providers_is_refused(tmp_path: Path) -> None:
    add_distribution(tmp_path, "twin-dist", "[flowpolicies.datasets]\ntoy = toy_plugin:load_wrongly\n")
    with pytest.raises(ValueError, match="dataset source 'toy' is provided more than once, by toy-dist, twin-dist"):
        load_dataset("toy:name")


def test_an_option_that_a_source_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the source 'npz' has no option \['data_dir'\]; it has name, observation_space"
    ):
        load_dataset("npz:data.npz", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"the source 'memmap' has no option \['data_dir'\]; it has verify"):
        load_dataset("memmap:data", data_dir=tmp_path)


def test_an_unknown_gymnasium_id_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"no environment 'Pendulun-v1': "):
        make_env("Pendulun-v1")


def test_options_may_stand_in_the_address(tmp_path: Path) -> None:
    assert len(load_dataset("toy:some-name,rows=2")) == 2
    assert len(load_dataset("toy:some-name,rows=2", rows=3)) == 3  # What is said in Python goes before.
    assert load_dataset("toy:a,b").name == "a,b"
    fields = save_dataset(tmp_path / "a,b.npz").arrays()
    write_npz(tmp_path / "a,b.npz", fields)
    assert load_dataset(f"npz:{tmp_path}/a,b.npz,name=mine").name == "mine"
    assert make_env("toy:x,max_episode_steps=7").spec.max_episode_steps == 7
    assert make_env("Pendulum-v1,g=3.5").unwrapped.g == 3.5
    assert generate_dataset(f"toy:x,folder={tmp_path}") == tmp_path / "x"
    with pytest.raises(
        ValueError, match=r"the source 'toy' has no option \['row'\]; it has rows\. Did you mean 'rows'\?$"
    ):
        load_dataset("toy:x,row=3")
    with pytest.raises(ValueError, match=r"the source 'npz' has no option \['storagex'\]; .* Did you mean 'storage'\?"):
        load_dataset("npz:data.npz,storagex=memmap")


def test_options_of_any_source_may_stand_in_the_address(tmp_path: Path) -> None:
    address, cache = f"npz:{tmp_path}/data.npz", tmp_path / "cache"
    saved = save_dataset(tmp_path / "data.npz")
    mapped = load_dataset(f"{address},storage=memmap,cache_dir={cache},compact=true")
    assert isinstance(mapped.actions, np.memmap)
    assert mapped.final_observations is not None
    assert mapped.fingerprint == saved.fingerprint
    assert len(list(cache.glob("data-*"))) == 1
    ram = load_dataset(f"{address},storage=memmap,compact=false", storage="ram", compact=True)
    assert not isinstance(ram.actions, np.memmap)  # What is said in Python goes before.
    assert ram.final_observations is not None


@pytest.mark.parametrize("source", ["npz", "hdf5", "sb3", "memmap", "toy", "ogbench"])
def test_unknown_storage_is_refused_whatever_the_source(source: str) -> None:
    for address, options in ((f"{source}:x", {"storage": "disk"}), (f"{source}:x,storage=disk", {})):
        with pytest.raises(ValueError, match=r"^unknown storage 'disk' \(known: ram, memmap\)\.$"):
            load_dataset(address, **options)
    with pytest.raises(ValueError, match=r"^compact is 'yes', and must be true or false\.$"):
        load_dataset(f"{source}:x,compact=yes")


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ("Pendulum-v1,gee=3", {}, r"the environment 'Pendulum-v1,gee=3' has no option 'gee'\.$"),
        ("Pendulum-v1", {"gee": 3}, r"the environment 'Pendulum-v1' has no option 'gee'\.$"),
        (
            "toy:x",
            {"max_episode_step": 3},
            r"'toy:x' has no option 'max_episode_step'\. Did you mean 'max_episode_steps'",
        ),
    ],
)
def test_an_option_that_an_environment_does_not_have_is_named(
    address: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_env(address, **options)


def test_options_are_json_or_text() -> None:
    options = {"trust": True, "n": 3, "x": -0.5, "name": "d4rl-antmaze", "none": None, "path": "/a b/c"}
    written = "sb3:b.pkl,trust=true,n=3,x=-0.5,name=d4rl-antmaze,none=null,path=/a b/c"
    assert split_options(written) == ("sb3:b.pkl", options)
    assert split_options("npz:a=b,c.npz") == ("npz:a=b,c.npz", {})


def test_the_environment_of_a_dataset_gets_the_options_that_it_knows() -> None:
    assert environment_of("npz:data.npz") is None
    assert environment_of("toy:x") == "toy:x"
    assert environment_of("toy:x,rows=2") == "toy:x"
    name = "ogbench:cube-single-play-singletask-v0"
    assert environment_of(f"{name},sparse=true,split=val", data_dir="/data") == f"{name},sparse=true"


def test_a_source_that_reads_no_file_is_not_laid_out_unasked() -> None:
    with pytest.raises(ValueError, match=r"'toy' does not say which ones it reads for 'x'\. Write the dataset with"):
        load_dataset("toy:x", storage="memmap")
