"""Model zips and replay buffers from files: structure, restricted reading, and checks before they become models."""

from __future__ import annotations

import base64
import importlib.util
import io
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, final

import cloudpickle
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_pkl, open_path
from torch import Tensor

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.containers import check_zip, is_zip, name_of, read_bytes, read_member
from flowpolicies.pickles import UnknownName, read_pickle
from flowpolicies.plugins import OURS, home_of
from flowpolicies.policies import FlowPolicy
from flowpolicies.policies.building import check_finite
from flowpolicies.policies.declared import MAX_COUNT, check_count
from flowpolicies.shell.config import PolicyConfig
from flowpolicies.shell.vocabulary import vocabulary

MAX_PARTS = 1_000_000
"""Greatest number of tensors and containers in a member of a model zip."""
TRUST = "If you trust the author of this file, load it with trust=True (on the command line: --trust)."
CODE = (
    "Functions and classes that were saved as code, such as a lambda as a schedule of the learning rate, are run when "
    "they are loaded: give them anew, load(path, learning_rate=...) or load(path, custom_objects={...}), or use a "
    f"class of stable_baselines3.common.utils, such as LinearSchedule. {TRUST}"
)
NOT_A_MODEL = "is damaged, or is not a model that model.save() wrote"
COUNTS = {"flow_steps", "diffusion_steps", "solver_steps", "support_steps", "consistency_steps"}
"""Fields of configs that count the calls of a network per action, at most `MAX_COUNT`."""
MAX_ENVIRONMENTS = 1 << 20
"""Largest number of parallel environments of a saved model."""


@final
class ModelFile(NamedTuple):
    """The content of a model zip whose structure has been checked."""

    path: str
    """Path, or the file object, for messages."""
    content: bytes
    """Bytes of the whole file."""
    members: Mapping[str, int]
    """Name of each member of the zip -> its unpacked size in bytes."""
    data: dict[str, Any]
    """Attributes of the model as JSON; what JSON cannot hold is a pickle in base64, see `read`."""

    def file(self) -> io.BytesIO:
        """The file, as Stable-Baselines3 reads it."""
        return io.BytesIO(self.content)

    def read(self, name: str) -> Any:
        """An attribute; if it is a pickle, by the restricted reader.

        Raises:
            ArtifactError: if the pickle is damaged, or needs what models do not consist of, by name.
            ImportError: if it needs a package that is not installed.
        """
        value = self.data[name]
        if not (isinstance(value, dict) and ":serialized:" in value):
            return value
        place = f"attribute {name!r}"
        try:
            with reading(self.path, place, TRUST):
                return read_pickle(base64.b64decode(value[":serialized:"], validate=True), vocabulary())
        except ArtifactError as error:
            if isinstance(error.__cause__, UnknownName):
                self._check_installed(error.__cause__.module)
                hint = CODE if error.__cause__.module.startswith("cloudpickle") else TRUST
                raise ArtifactError(self.path, str(error.__cause__), place=place, hint=hint) from error
            raise

    def _check_installed(self, module: str) -> None:
        """Raises an ImportError if a module is missing and the algorithm is of another package."""
        top, package = module.partition(".")[0], self.data.get("package")
        if not isinstance(package, str) or package == OURS or not top.isidentifier() or top == "__main__":
            return
        if importlib.util.find_spec(top) is None:
            raise ImportError(
                f"the model in '{self.path}' needs the package {package}, which cannot be imported (No module named "
                f"{top!r}). Install it: pip install {package}"
            )

    def config(self, *, trust: bool) -> Any:
        """The model's config; None if the file has none.

        Raises:
            ArtifactError: as `read`.
            ImportError: as `read`.
        """
        if "cfg" not in self.data:
            return None
        if trust:
            return cloudpickle.loads(base64.b64decode(self.data["cfg"][":serialized:"]))
        return self.read("cfg")

    def attributes(self, cls: type[Any], given: Collection[str]) -> dict[str, Any]:
        """All attributes of the model, read without running anything.

        Args:
            cls: class of the model.
            given: names of attributes that the caller replaces, which are not read.

        Raises:
            ArtifactError: as `read`; if an attribute would replace a method, or is an environment; or if a number is
                out of its range.
            ImportError: as `read`.
        """
        found: dict[str, Any] = {}
        for name in self.data:
            if name in given:
                continue
            if name.startswith("__") or callable(getattr(cls, name, None)):
                raise ArtifactError(self.path, "it would replace a method of the model", place=f"attribute {name!r}")
            # Stable-Baselines3 makes the schedule anew from learning_rate.
            found[name] = None if name == "lr_schedule" else self.read(name)
        if found.get("env") is not None:
            raise ArtifactError(self.path, "the file holds an environment, which is code", hint=TRUST)
        n_envs = found.get("n_envs", 1)
        if type(n_envs) is not int or not 1 <= n_envs <= MAX_ENVIRONMENTS:
            raise ArtifactError(self.path, "must be a number of environments", place="attribute 'n_envs'")
        if isinstance(cfg := found.get("cfg"), PolicyConfig):
            with reading(self.path, "attribute 'cfg'"):
                for name in COUNTS & vars(cfg).keys():
                    check_count(name, vars(cfg)[name], MAX_COUNT)
        return found

    def weights(self) -> dict[str, Tensor]:
        """The tensors of the policy, after checks of all files of tensors in the zip.

        Raises:
            ArtifactError: if one is not in torch's zip format, holds something else than tensors and numbers, or
                weights that are NaN or infinite.
        """
        found: dict[str, Tensor] = {}
        for name in self.members:
            stem = name.removesuffix(".pth")
            if stem == name:
                continue
            if not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", stem) or "__" in stem:
                raise ArtifactError(self.path, "is not the name of an attribute", place=f"member {name[:60]!r}")
            content = read_member(self.content, self.path, name)
            check_zip(content, self.path, name, stored=True)
            with reading(self.path, name, TRUST):
                state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                _check_tensors(state, len(content))
                if stem in ("pytorch_variables", "tensors") and state:
                    raise ValueError("models of flowpolicies have no such variables")
                if stem == "policy":
                    check_finite(state)
                    found = state
        return found


def open_model(source: str | Path | BinaryIO) -> ModelFile:
    """Reads a model zip, and checks its structure without unpacking it.

    Args:
        source: path, whose suffix .zip may be left out, or a binary file object.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is not a zip that `save` wrote, or a damaged one.
    """
    if isinstance(source, str | Path):
        places = (Path(source), Path(f"{source}.zip"))
        source = next((place for place in places if place.is_file()), places[1])
    path = name_of(source)
    content = read_bytes(source)
    if not is_zip(content):
        raise ArtifactError(path, NOT_A_MODEL)
    members = check_zip(content, path)
    if "data" not in members:
        raise ArtifactError(path, NOT_A_MODEL)
    data = parse_json(read_member(content, path, "data"), path, "data")
    if not isinstance(data, dict):
        raise ArtifactError(path, NOT_A_MODEL, place="data")
    return ModelFile(path, content, members, data)


def read_buffer(source: str | Path | BinaryIO, *, trust: bool = False, verbose: int = 0) -> Any:
    """A replay buffer that `save_replay_buffer` wrote, of this package or of Stable-Baselines3.

    Args:
        source: path, whose suffix .pkl may be left out, or a binary file object.
        trust: whether to run what the pickle says. Otherwise it is read by the restricted reader.
        verbose: as of the model.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is damaged, or needs something else than replay buffers consist of, by name.
    """
    path = name_of(source)
    with reading(path):
        if trust:
            return load_from_pkl(source, verbose)  # type: ignore[arg-type]
        file = open_path(source, "r", verbose=verbose, suffix="pkl")  # type: ignore[arg-type]
        content = file.read()
        if isinstance(source, str | Path):
            file.close()
    with reading(path, hint=TRUST):
        return read_pickle(content, vocabulary())


@contextmanager
def blaming(path: str, *, changed: bool) -> Iterator[None]:
    """Raises errors of making a model from a file as an `ArtifactError`.

    Args:
        path: path of the file.
        changed: whether the caller changes something of the model. A ValueError or TypeError may then be about that,
            and passes.
    """
    try:
        with reading(path):
            yield
    except ArtifactError as error:
        if changed and isinstance(error.__cause__, ValueError | TypeError):
            raise error.__cause__ from None
        raise


def _check_tensors(state: Any, size: int) -> None:
    """Raises a ValueError for a tensor that repeats its numbers, is sparse, or belongs to a subclass, and for
    containers that contain one another so often that walking through them visits more than `MAX_PARTS` objects."""
    todo, total, seen = [state], 0, 0
    while todo:
        part, seen = todo.pop(), seen + 1
        if seen > MAX_PARTS:
            raise ValueError(f"holds more than {MAX_PARTS:,} objects")
        if isinstance(part, Tensor):
            if type(part) not in (Tensor, torch.nn.Parameter) or part.layout != torch.strided or part.is_meta:
                raise ValueError(f"holds a tensor of the kind {type(part).__name__}")
            total += part.numel() * part.element_size()
        elif isinstance(part, Mapping):
            todo += part.values()
        elif isinstance(part, list | tuple):
            todo += part
        if total > size or len(todo) > MAX_PARTS:
            raise ValueError("holds tensors that repeat their numbers")


def check_owner(who: str, config: type[Any], saved_config: type[Any], policy_class: type[BasePolicy]) -> None:
    """Checks that a loaded file holds a model of the class that loads it.

    Args:
        who: name of the class that loads it.
        config: Config of that class.
        saved_config: type of the config in the file.
        policy_class: class of the policy in the file.

    Raises:
        ValueError: if the file holds another algorithm's model.
    """
    if not (isinstance(policy_class, type) and issubclass(policy_class, FlowPolicy)):
        raise ValueError(
            f"{who} acts with FlowPolicy, got {getattr(policy_class, '__name__', policy_class)}. Load a model of "
            "another package with the load() of its own class."
        )
    if home_of(saved_config) != home_of(config):
        owner = saved_config.__name__.removesuffix("Config")
        raise ValueError(f"the file holds a model of {owner}, not of {who}. Load it with {owner}.load().")
