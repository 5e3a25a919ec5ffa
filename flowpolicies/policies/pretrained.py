"""Policies as folders for others: weights, declaration, model card and results.

    config.json         declaration of the policy, with the version of its schema
    model.safetensors   policy file: weights, and the same declaration (see `flowpolicies.policies.policy_file`)
    README.md           model card
    results.json        evaluations, data, training, software and hardware as JSON

The first two are needed to load the policy, and must agree. Nothing in any of them is executed.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import safe_open
from stable_baselines3.common.policies import BasePolicy

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.data import TransitionDataset
from flowpolicies.files import atomic_folder, write_json
from flowpolicies.messages import did_you_mean
from flowpolicies.policies.evaluation import Evaluation
from flowpolicies.policies.model_card import EvaluationSummary, ModelCard, without_home
from flowpolicies.policies.policy_file import FORMAT, VERSION
from flowpolicies.version import __version__

CONFIG, WEIGHTS, CARD, RESULTS = "config.json", "model.safetensors", "README.md", "results.json"
FILES = (CONFIG, WEIGHTS, CARD, RESULTS)
MAX_CONFIG_BYTES = 1_000_000
"""Largest `config.json` that is read; what flowpolicies writes is below 100 kB."""
ABOUT = ("schema_version", "name", "flowpolicies")
"""Keys of `config.json` that are not part of the declaration of the policy."""
BOX = Path(__file__).parents[1] / "pretrained"
"""Folder of the policies that the package brings, one folder each; `flowpolicies/NAME` loads them."""


class Origin(NamedTuple):
    """Where a policy was loaded from."""

    source: str
    """Path of the folder or file, or address of the repository, `hf://user/name`."""
    commit: str | None = None
    """Commit of the repository, as 40 hexadecimal digits; None for folders and files of this machine."""

    def __str__(self) -> str:
        return self.source if self.commit is None else f"{self.source}@{self.commit}"


class PretrainedPolicy(BasePolicy, ABC):
    """Abstract base of policies that are written to and read from folders and repositories for others."""

    origin: Origin | None = None
    """Where `from_pretrained` loaded the policy from; None for other policies."""

    @abstractmethod
    def declaration(self) -> dict[str, Any]:
        """Everything that a policy file holds besides the weights, as JSON data."""

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        license: str | None = None,
        evaluation: Evaluation | EvaluationSummary | Sequence[Evaluation | EvaluationSummary] | None = None,
        dataset: TransitionDataset | Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> Path:
        """Writes weights, declaration, model card and results to a folder that `from_pretrained` reads.

        The folder appears complete or not at all. An existing folder is replaced if it is empty, or holds a policy
        that this method wrote and nothing else.

        Args:
            folder: path of the folder.
            name: name in the model card, such as "pendulum-qflow", or `user/name` of the repository it is for; None:
                the name of the folder.
            license: identifier of the license of the weights, such as "mit"; None: the card says "not stated".
            evaluation: what `evaluate` returned, or several of it.
            dataset: the training data; name, size and fingerprint are written.
            training: record of the training, as JSON data, for `results.json`; the card shows `algorithm`, `commands`,
                `seed`, `steps` (phase -> number) and `software`.

        Raises:
            FileExistsError: if the folder holds anything else.
            TypeError: as `check_savable`.
        """
        path = Path(folder).expanduser().resolve()
        check_replaceable(path)
        declaration = self.declaration()
        card = ModelCard.make(name or path.name, license, evaluation, dataset, training, _properties(self, declaration))
        about = {"schema_version": VERSION, "name": card.name, "flowpolicies": __version__}
        with atomic_folder(path) as temporary:
            self.save(str(temporary / WEIGHTS))
            write_json(temporary / CONFIG, {"format": FORMAT, **about, **declaration})
            write_json(temporary / RESULTS, without_home(card.results()))
            (temporary / CARD).write_text(without_home(card.text()), encoding="utf-8")
        return path

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: torch.device | str = "auto") -> Self:
        """Reads a policy from a folder of `save_pretrained`, or from a policy file.

        Args:
            source: path of a folder or of a policy file; or the name of a policy that the package brings,
                "flowpolicies/NAME".
            device: torch device; "auto": CUDA if it is available.

        Raises:
            FileNotFoundError: if there is nothing of that name; the message says where it was looked for.
            ArtifactError: if a file is damaged, of another kind, or of a newer version.
            ImportError: if the policy needs a package that cannot be imported.
        """
        path = find_local(source)
        file = checked_weights(path) if path.is_dir() else path
        policy = cls.load(str(file), device)
        policy.origin = Origin(str(source))
        return policy


def find_local(source: str | Path) -> Path:
    """The existing folder or file of a name: a path, or else that of a policy in the box.

    Raises:
        FileNotFoundError: if there is neither.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    owner, _, name = str(source).partition("/")
    if isinstance(source, str) and owner == "flowpolicies" and name and "/" not in name:
        return find_in_box(name)
    near = [other.name for other in path.parent.glob("*")]
    raise FileNotFoundError(f"no pretrained policy '{source}': no such folder or file.{did_you_mean(path.name, near)}")


def find_in_box(name: str) -> Path:
    """The folder of a policy that the package brings.

    Raises:
        FileNotFoundError: if the package does not bring it; the message lists those that it does.
    """
    known = list_box()
    if name not in known:
        raise FileNotFoundError(
            f"flowpolicies {__version__} brings no policy '{name}' (there are: "
            f"{', '.join(known) or 'none'}).{did_you_mean(name, known)}"
        )
    return BOX / name


def list_box() -> list[str]:
    """Names of the policies that the package brings."""
    return sorted(folder.parent.name for folder in BOX.glob(f"*/{CONFIG}"))


def check_replaceable(path: Path) -> None:
    """Raises an error unless `save_pretrained` may write to a path: nothing, an empty folder, or what it wrote before.

    Raises:
        FileExistsError: if there is anything else.
    """
    if not path.exists():
        return
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else None
    if names == [] or (names is not None and set(names) <= set(FILES) and is_pretrained(path)):
        return
    what = "is a file" if names is None else f"holds other files ({', '.join(names[:5])}{', ...' if names[5:] else ''})"
    raise FileExistsError(
        f"'{path}' {what}, which save_pretrained would delete. Choose a new folder, or one that save_pretrained wrote."
    )


def is_pretrained(folder: Path) -> bool:
    """Whether a folder is one of `save_pretrained`, and not that of a run, whose `config.json` has no format."""
    try:
        return bool(read_config(folder).get("format") == FORMAT)
    except (ArtifactError, FileNotFoundError):
        return False


def read_config(folder: Path) -> dict[str, Any]:
    """Content of `config.json`.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is not a JSON object, or larger than `MAX_CONFIG_BYTES`.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"'{folder}' is not a folder of a pretrained policy: it has no {CONFIG}. FlowPolicy.from_pretrained reads "
            "folders that save_pretrained wrote, and policy files."
        )
    with open(path, "rb") as file:
        text = file.read(MAX_CONFIG_BYTES + 1)
    if len(text) > MAX_CONFIG_BYTES:
        raise ArtifactError(path, f"it has more than {MAX_CONFIG_BYTES} bytes, which no declaration of a policy needs")
    config = parse_json(text, path)
    if not isinstance(config, dict):
        raise ArtifactError(path, f"it holds a {type(config).__name__}, but must hold an object")
    return config


def checked_weights(folder: Path) -> Path:
    """The policy file of a folder, whose declaration is that of `config.json`.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        ArtifactError: if they do not agree, or are of another kind or a newer version.
    """
    config = read_config(folder)
    _check_kind(folder, config)
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' has no {WEIGHTS}, the weights of the policy. Download or copy it too.")
    declared = {key: value for key, value in config.items() if key not in ABOUT}
    with reading(path), safe_open(path, framework="pt") as file:
        written = parse_json((file.metadata() or {}).get("config", "{}"), path, "metadata")
    written = {key: value for key, value in written.items() if key != "version"}
    different = sorted(key for key in declared.keys() | written.keys() if declared.get(key) != written.get(key))
    if different:
        raise ArtifactError(
            folder,
            f"{CONFIG} and the metadata of {WEIGHTS} declare different policies",
            place=", ".join(different),
            hint=f"The files are of different policies, or one was edited. {WEIGHTS} alone can be loaded: "
            f"FlowPolicy.from_pretrained('{path}').",
        )
    return path


def _check_kind(folder: Path, config: Mapping[str, Any]) -> None:
    path = folder / CONFIG
    if "algorithm" in config and "sb3_hyperparameters" in config:
        raise ArtifactError(
            folder,
            "it is the folder of a training run",
            hint=f"Make a folder for others with: flowpolicies export {folder} --out FOLDER. Or load the policy of the "
            f"run: FlowPolicy.from_pretrained('{folder / 'policy.safetensors'}').",
        )
    version = config.get("schema_version")
    if config.get("format") != FORMAT:
        raise ArtifactError(path, f"its format is {config.get('format')!r}, but must be {FORMAT!r}", place="format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ArtifactError(
            path, f"it is {version!r}, but must be a number from 1 to {VERSION}", place="schema_version"
        )
    if version > VERSION:
        raise ArtifactError(
            path,
            f"it has version {version}, but flowpolicies {__version__} reads versions 1 to {VERSION}",
            place="schema_version",
            hint="A newer flowpolicies wrote it: pip install --upgrade flowpolicies.",
        )


def _properties(policy: PretrainedPolicy, declaration: Mapping[str, Any]) -> dict[str, str]:
    """What the model card says about the policy itself."""
    weights = sum(parameter.numel() for parameter in policy.parameters())
    found = {
        "observations": _short(policy.observation_space),
        "actions": _short(policy.action_space),
        "networks": ", ".join(declaration["networks"]),
        "sampler": str(declaration["sampler"]["type"]),
        "parameters": f"{weights:,}",
    }
    if declaration["horizon"] > 1:
        found["chunks"] = f"{declaration['horizon']} actions, of which {declaration['execute']} are executed"
    return found


def _short(thing: object) -> str:
    text = re.sub(r"\s+", " ", str(thing))
    return text if len(text) <= 200 else f"{text[:200]}..."
